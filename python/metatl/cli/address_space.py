"""A limit of the address space that the libraries do not fit into, as `ulimit -v` sets."""

from __future__ import annotations

_SMALLEST = 6 * 2**30  # bytes; torch, polars and their threads reserve more than they use


def check_address_space() -> None:
    """Refuse a low limit of the address space.

    Libraries that cannot reserve what they want end the process, or wait for ever.

    Raises
    ------
    MemoryError
        If the limit is below 6 GiB.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _SMALLEST:
        raise MemoryError(
            f"found a limit of {limit / 2**30:.1f} GiB on the address space (ulimit -v), expected none or at "
            f"least {_SMALLEST >> 30} GiB; libraries reserve more than they use"
        )
