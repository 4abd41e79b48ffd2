"""`python -m titus_celery` is the `titus` command."""

from titus_celery.cli.main import main

if __name__ == "__main__":
    main()
