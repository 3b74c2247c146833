"""Golden cases: outputs of the original research code on weights that a rule makes from the names of the tensors."""
