"""The converter's version: a manifest made by another one is made again when its source is."""

VERSION = "2"
