"""The CUDA engine. Importing it needs neither CuPy nor a GPU; launching a kernel needs both."""
