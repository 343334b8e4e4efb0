"""What a pipeline has read of its bundle: graphs, tokenizers and tables, each when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvsdk._arguments import check_choice
from mvsdk.backends.isolated import Isolated, IsolatedSession
from mvsdk.errors import InputError
from mvsdk.tables import read_table
from mvsdk.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends import Selection, Session
    from mvsdk.bundle import Bundle


class Loaded:
    """Graphs, tokenizers and tables of one bundle, as one selection runs it."""

    def __init__(self, bundle: Bundle, selection: Selection, *, one_at_a_time: bool) -> None:
        """Start with nothing.

        Args:
            bundle: Has the files.
            selection: Says which variant of a component is loaded, and on what.
            one_at_a_time: Let each graph go before the next is loaded.
        """
        self._bundle = bundle
        self._selection = selection
        self._one_at_a_time = one_at_a_time
        self._sessions: dict[str, Session] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        self._tables: dict[str, NDArray[Any]] = {}

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components whose graphs are loaded."""
        return tuple(self._sessions)

    def session(self, component: str) -> Session:
        """Return the graph of a component; see `mvsdk.Pipeline.session`."""
        check_choice("component", component, self._selection.variants)
        session = self._sessions.get(component)
        if session is None or (isinstance(session, IsolatedSession) and session.is_lost):
            if self._one_at_a_time:
                self.let_graphs_go()
            variant = self._selection.variants[component]
            session = self._selection.backends[component].load(self._bundle, variant)
            self._sessions[component] = session
        return session

    def tokenizer(self, name: str | None) -> Tokenizer:
        """Return a tokenizer; see `mvsdk.Pipeline.tokenizer`."""
        manifest = self._bundle.manifest
        if name is None:
            raise InputError(f"bundle {manifest.name} has no tokenizer: it takes no prompt")
        check_choice("name", name, manifest.tokenizers)
        if name not in self._tokenizers:
            spec = manifest.tokenizers[name]
            self._tokenizers[name] = load_tokenizer(
                self._bundle.file(spec.file),
                kind=spec.kind,
                max_length=spec.max_length,
                too_long=spec.too_long,
            )
        return self._tokenizers[name]

    def table(self, name: str) -> NDArray[Any]:
        """Return a table of the bundle.

        Raises:
            BundleError: If its file is damaged.
        """
        if name not in self._tables:
            self._tables[name] = read_table(self._bundle, self._bundle.manifest.tables[name])
        return self._tables[name]

    def end_clip(self) -> None:
        """Let the graphs go after a clip, where only one at a time may be there."""
        if self._one_at_a_time:
            self.let_graphs_go()

    def let_graphs_go(self) -> None:
        """Let all graphs go; they are loaded again when they are needed."""
        while self._sessions:
            _, session = self._sessions.popitem()
            session.close()

    def close(self) -> None:
        """Let all graphs go, and end the processes that ran some."""
        self.let_graphs_go()
        for backend in self._selection.backends.values():
            if isinstance(backend, Isolated):
                backend.close()
