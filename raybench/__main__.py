"""`python -m raybench`: the command line from a working directory, without installation."""

from raybench.cli.main import main

if __name__ == "__main__":
    main(prog_name="raybench")
