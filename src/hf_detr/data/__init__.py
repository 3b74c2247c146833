"""Detection data sets: one schema, readers, augmentation, collation and the built-in synthetic set."""
