"""Side-by-side measurements that anyone can run; RESULTS.md is the log of what was measured, kept and rejected."""
