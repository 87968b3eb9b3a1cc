"""Reports from run folders, benchmarks and experiments; installed as popcomm.analysis."""
