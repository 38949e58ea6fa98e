"""A network as a graph of tensor operations: its gates, its geometry, its plain evaluation."""
