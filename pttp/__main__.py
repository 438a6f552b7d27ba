from pttp.cli import main

main()
