"""Array programs behind the backends: the plain-torch definition and the Triton kernels."""
