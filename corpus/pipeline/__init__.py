"""The per-unit work as datatrove steps, and running them over many units."""
