"""Steps that compare documents with each other, and the drop lists they end in."""
