"""Search over the registry: clauses, lexical and vector scores, fusion, evidence."""
