"""What scripts/gpu_study.sh runs: prepare (anywhere), train (on the GPU), collect (anywhere)."""
