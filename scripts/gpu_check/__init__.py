"""What scripts/gpu_check.sh runs."""
