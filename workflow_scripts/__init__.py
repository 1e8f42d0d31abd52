"""The steps of the diffscope workflow, one package per stage."""
