"""Put on PYTHONPATH by chaos rounds on Ray: every Python process that starts there can come to harm."""

import os

if os.environ.get("HEADRACE_CHAOS"):
    import sys
    import threading
    from pathlib import Path

    def _install() -> None:
        from tests.chaos.faults import Folder, install, install_in_driver

        folder = Folder(Path(os.environ["HEADRACE_CHAOS"]))
        if os.path.basename(sys.argv[0]) in ("cli.py", "headrace"):
            install_in_driver(folder)
        else:
            install(folder)

    def _install_in_writer() -> None:
        from tests.chaos.faults import Folder, install_in_writer

        install_in_writer(Folder(Path(os.environ["HEADRACE_CHAOS"])))

    class _WhenItIsImported:
        """Installs as soon as somebody imports what is to come to harm: most of Ray's processes never do."""

        writer = os.environ.get("HEADRACE_CHAOS_WRITER")
        busy = threading.local()

        def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
            wanted = (
                "ray.data._internal.datasource.parquet_datasink" if self.writer else "headrace.cluster.worker.worker"
            )
            if name == wanted and not getattr(self.busy, "on", False):
                self.busy.on = True
                sys.meta_path.remove(self)
                _install_in_writer() if self.writer else _install()

    sys.meta_path.insert(0, _WhenItIsImported())
