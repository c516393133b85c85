"""`python -m kerzoo.kernels`: the exact figures of every kernel family."""

from __future__ import annotations

import argparse

from kerzoo.kernels.base import check_order
from kerzoo.kernels.table import ORDERS_SHOWN, format_table

LEGEND = """
K(r) weights a loss difference at radius r; the bias of the estimate is O(eps^order).
V_n = E[K^2] amplifies loss noise, V_s = E[(rK)^2] is the variance without it (MeZO: 1);
lead = E[r^(order+1) K] is the factor of the first bias term that is left.
Richardson measures order/2 differences on each direction, the others one."""


def main() -> None:
    """Print the table and what its columns mean."""
    parser = argparse.ArgumentParser(prog="python -m kerzoo.kernels", description=__doc__)
    parser.add_argument(
        "--orders",
        type=int,
        nargs="+",
        default=ORDERS_SHOWN,
        metavar="M",
        help="orders of the families that have several, even (default: 2 4 6 8)",
    )
    orders = parser.parse_args().orders
    try:
        for order in orders:
            check_order(order)
    except ValueError as error:
        parser.error(str(error))
    print(format_table(orders))
    print(LEGEND)


if __name__ == "__main__":
    main()
