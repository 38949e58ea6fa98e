"""Many volumes: which, run one after the other or on a cluster, and a table of all."""
