import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait make a busy 2-core machine ten times slower

from pttp.cli import main  # noqa: E402

main()
