"""The hub's part for extended connections: sessions, positions and replay (protocol, section 7)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

from ..protocol import close_codes
from ..protocol.messages import add_position
from ..protocol.names import Kind
from ..protocol.options import SubscribeOptions
from ..protocol.session_keys import SessionKey
from .broker import AppKey, Backend, BrokerUnavailableError, PresentUsers, Publication, private_log
from .broker.recovery import Recovery
from .config import App, Limits
from .extension import now_ms
from .hub import Hub
from .outbox import Outbox
from .replay import Replay, ReplayLostError
from .revocations import LostSession, LostSessions, Revocations


class Resumed(NamedTuple):
    """A session continues.

    Attributes:
        position: where live delivery of private messages begins.
        complete: whether everything after the position that the client gave was replayed.
        resumes: how often the session has been resumed.
    """

    position: str
    complete: bool
    resumes: int


class Subscribed(NamedTuple):
    """The outbox of an extended connection is subscribed.

    Attributes:
        position: where live delivery begins.
        complete: whether everything after the position that the client gave was replayed.
        replayed: how many messages were replayed.
        present: how many present users were reported.
        version: of the last presence event that their list contains; 0 without presence mode.
    """

    position: str
    complete: bool
    replayed: int
    present: int
    version: int


class _Extended(NamedTuple):
    """An extended connection: its app, and the log of its private messages."""

    app: App
    log: str


class ExtendedHub(Hub):
    """A hub for plain and extended connections.

    Parameters:
        backend, coalesce_window_s: those of a hub.
        limits: those of the server; ``None`` for the defaults.

    Attributes:
        revocations: of the app's subscribers and users.
        lost_sessions: those that had their last connection here.
    """

    def __init__(self, backend: Backend, *, coalesce_window_s: float, limits: Limits | None = None) -> None:
        super().__init__(backend, coalesce_window_s=coalesce_window_s)
        limits = limits or Limits()
        self.revocations = Revocations(limits)
        self.lost_sessions = LostSessions(limits.max_lost_sessions)
        # An outbox that catches up reads its private messages from the log.
        self._extended: dict[Outbox, _Extended] = {}
        self._catching_up: set[Outbox] = set()

    def _private_event(self, outbox: Outbox, publication: Publication) -> bytes | None:
        extended = self._extended.get(outbox)
        if extended is None:
            return super()._private_event(outbox, publication)
        if outbox in self._catching_up:
            return None
        return self._extender(*extended)(publication)

    def end_session(self, app: AppKey, subscriber_id: str) -> None:
        """Refuse to resume a session on this node."""
        self.revocations.revoke_subscriber(app, subscriber_id, self.clock_ms())

    def clock_ms(self) -> int:
        """The time in milliseconds since 1970, by the clock by which sessions begin and are revoked."""
        return self._backend.revocations.now_ms()

    def lose(self, app: AppKey, subscriber_id: str, outbox: Outbox, session: LostSession) -> None:
        """Remember a session whose connection was lost, unless it continues on another one or was ended."""
        is_owner = self._private.get((app, subscriber_id)) is outbox
        if is_owner and not self.revocations.is_ended(app, subscriber_id):
            self.lost_sessions.add(app, subscriber_id, session, now_ms())

    def move(self, app: AppKey, subscriber_id: str) -> None:
        self.lost_sessions.remove(app, subscriber_id, now_ms())
        super().move(app, subscriber_id)

    def disconnect(self, app: AppKey, subscriber_id: str, outbox: Outbox) -> None:
        super().disconnect(app, subscriber_id, outbox)
        extended = self._extended.pop(outbox, None)
        if extended is not None:
            self.recovery.release(app, extended.log)

    def enable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        super().enable_direct(app, name, outbox, user_id)
        if self._streams[app, name].is_extended(outbox):
            self.recovery.need(app, name, user_id)

    def disable_direct(self, app: AppKey, name: str, outbox: Outbox, user_id: str) -> None:
        super().disable_direct(app, name, outbox, user_id)
        if self._streams[app, name].is_extended(outbox):
            self.recovery.release(app, name, user_id)

    @property
    def recovery(self) -> Recovery:
        """The broker's memory for clients that lost a connection.

        Raises:
            BrokerUnavailableError: it remembers nothing.
        """
        if self._backend.recovery is None:
            raise BrokerUnavailableError("this broker has no sessions", retry_after_s=1)
        return self._backend.recovery

    def _extender(self, app: App, log: str) -> Callable[[Publication], bytes]:
        positions, recovery = app.positions, self.recovery

        def extend(publication: Publication) -> bytes:
            if not publication.place:
                return publication.event  # of presence
            return add_position(publication.event, positions.encode(log, recovery.epoch, publication.place))

        return extend

    def _position(self, app: App, log: str) -> str:
        """The current position of a log."""
        return app.positions.encode(log, self.recovery.epoch, self.recovery.reached(app.key, log))

    async def _place(self, app: App, log: str, position: str, user_id: str | None = None) -> int | None:
        """The place of a position; ``None`` if it is not one of the log."""
        place = app.positions.decode(log, self.recovery.epoch, position)
        if place is not None:
            await self.recovery.load(app.key, log, place, user_id)
        return place

    def begin(self, app: App, subscriber_id: str, outbox: Outbox) -> str:
        """Let the private messages of a connection carry positions; return the current position."""
        recovery, log = self.recovery, private_log(subscriber_id)
        position = self._position(app, log)
        self._extended[outbox] = _Extended(app, log)
        recovery.need(app.key, log)
        return position

    async def resume(
        self, app: App, session: SessionKey, outbox: Outbox, own_id: str, since: str | None
    ) -> Resumed | None:
        """Continue a session: its private messages reach ``outbox`` once this has returned.

        Parameters:
            session: the content of the client's key.
            own_id: the subscriber ID that the connection had so far.
            since: the position after which private messages are replayed; ``None`` for no replay.

        Returns:
            ``None`` if the session was ended, or a later key was used.

        Raises:
            BrokerUnavailableError: the session can be continued later.
        """
        recovery, log = self.recovery, private_log(session.subscriber_id)
        place = None if since is None else app.positions.decode(log, recovery.epoch, since)
        resumes = await recovery.resume(app.key, session.subscriber_id, session.number, place)
        if not resumes:
            return None
        key = app.key, session.subscriber_id
        if self.revocations.is_ended(*key):
            recovery.release(app.key, log)  # else a node would keep the session that was noted as its own
            return None
        self.lost_sessions.remove(*key, now_ms())
        if (lost := self._private.get(key)) is not None and lost is not outbox:
            lost.close(close_codes.SESSION_MOVED, "the session continues on another connection")
        self._private[key] = outbox
        self._extended[outbox] = _Extended(app, log)
        self._catching_up.add(outbox)
        try:
            complete = since is None
            extend = self._extender(app, log)
            if place is not None:
                await recovery.load(app.key, log, place)
                replay = Replay(outbox, extend, lambda p: p.excluded != session.subscriber_id)
                complete = await replay.catch_up(partial(recovery.since, app.key, log), place)
                self.counts.deliveries += replay.count
        except BaseException as error:
            if isinstance(error, ReplayLostError):
                outbox.close(close_codes.SERVICE_RESTART, "messages were missed")
            self.disconnect(*key, outbox)
            raise
        finally:
            self._catching_up.discard(outbox)
        if self._private.get(key) is not outbox:
            raise ReplayLostError  # another connection has continued the session, and closed this one
        self._private.pop((app.key, own_id), None)  # unless the connection was closed meanwhile
        return Resumed(self._position(app, log), complete, resumes)

    async def subscribe_extended(
        self,
        app: App,
        name: str,
        outbox: Outbox,
        options: SubscribeOptions,
        *,
        subscriber_id: str,
        connection_id: str,
        with_direct: bool,
        max_replay_bytes: int,
    ) -> Subscribed:
        """Subscribe an outbox with modes and a replay. It is held until :meth:`go_live`.

        Parameters:
            connection_id: names the connection in presence.
            with_direct: whether ``since`` replays direct messages, too.
            max_replay_bytes: limit for the newest messages, if the options ask for them.

        Raises:
            BrokerUnavailableError: the outbox is not subscribed. Some of the replay may have been written.
        """
        recovery = self.recovery
        is_with_direct = with_direct and options.since is not None
        user_id = options.direct.user_id if options.direct is not None and is_with_direct else None
        since = partial(recovery.since, app.key, name, user_id=user_id)
        extend = self._extender(app, name)

        def receives(publication: Publication) -> bool:
            is_for_it = publication.kind is not Kind.AUTH or options.auth is not None
            return is_for_it and publication.excluded != subscriber_id

        async with self.used(app.key, name) as stream, self._needed(app.key, name, user_id):
            stream.extend = extend
            replay = Replay(outbox, extend, receives)
            try:
                if options.since is not None:
                    place = await self._place(app, name, options.since, user_id)
                    complete = place is not None and await replay.catch_up(since, place)
                else:
                    complete = True  # there is no gap
                    if options.last:
                        # The first waits until the broker knows whether it has lost messages.
                        for oldest in (recovery.reached(app.key, name), None):
                            await recovery.load(app.key, name, oldest)
                        # No message arrives between this and the next line.
                        place = recovery.reached(app.key, name)
                        newest = self._newest(app, name, options.last, max_replay_bytes, receives)
                        if since(place) is not None:  # else it may have lost some
                            await replay.write(newest)
                            await replay.finish(since, place)
            except ReplayLostError:
                outbox.close(close_codes.SERVICE_RESTART, "messages were missed")
                raise
            # In the same turn as the end of the replay, so that no message is lost or sent twice.
            stream.add(outbox, subscriber_id, is_extended=True)
            if options.auth is not None:
                stream.enable_auth(outbox)
            if options.direct is not None:
                self.enable_direct(app.key, name, outbox, options.direct.user_id)
            position = self._position(app, name)
            stream.hold(outbox)
            present, count = PresentUsers((), 0), 0
            if options.presence is not None:
                joining = options.presence.user_id
                try:
                    present = await self._presence.join(app.key, name, joining, connection_id)
                    count = await self._write_present(name, outbox, joining, present)
                except BaseException:
                    self._abandon(app.key, name, outbox, options)
                    raise
                stream.enable_presence(outbox, joining)
            self.counts.deliveries += replay.count
            return Subscribed(position, complete, replay.count, count, present.version)

    @contextlib.asynccontextmanager
    async def _needed(self, app: AppKey, name: str, user_id: str | None) -> AsyncIterator[None]:
        """Need a user's direct messages for a replay: the user's other connections may end meanwhile."""
        if user_id is None:
            yield
            return
        self.recovery.need(app, name, user_id)
        try:
            yield
        finally:
            self.recovery.release(app, name, user_id)

    def go_live(self, app: AppKey, name: str, outbox: Outbox, version: int) -> int:
        """Write the events that arrived since :meth:`subscribe_extended`, and all later ones immediately."""
        stream = self._streams[app, name]
        stream.release(outbox, version=version)
        return stream.count_presence() if version else 0

    def _newest(
        self, app: App, name: str, count: int, max_bytes: int, receives: Callable[[Publication], bool]
    ) -> list[Publication]:
        found: list[Publication] = []
        if not app.opens_history(name):
            return found
        for publication in filter(receives, self.recovery.newest_first(app.key, name)):
            max_bytes -= len(publication.event)
            if len(found) == count or max_bytes < 0:
                break
            found.append(publication)
        return found[::-1]

    def _abandon(self, app: AppKey, name: str, outbox: Outbox, options: SubscribeOptions) -> None:
        stream = self._streams[app, name]
        stream.release(outbox)
        if options.auth is not None:
            stream.disable_auth(outbox)
        if options.direct is not None:
            self.disable_direct(app, name, outbox, options.direct.user_id)
        stream.remove(outbox)
