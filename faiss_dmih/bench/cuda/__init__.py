"""`faiss-dmih bench --device cuda`: GpuIndexDMIH against the limits of the GPU it runs on.

The kinds of results, the checks and the questions are the CPU benchmark's. What differs is how time
is taken (`device`), what is compared with what (`limits`), and what is measured (`plan`).
"""
