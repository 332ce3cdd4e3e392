"""What every layer uses: files, arguments, memory, timings."""
