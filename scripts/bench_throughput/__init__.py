"""The throughput study: what `scripts/bench_throughput.sh` runs."""
