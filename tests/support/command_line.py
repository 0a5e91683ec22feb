"""The command line, called in this process."""

from keras_popup import cli


def run(capsys, *arguments):
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err
