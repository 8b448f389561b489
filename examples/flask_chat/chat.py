"""A chat with rooms, on Flask and Tambur: presence, direct messages, and notes that only admins see."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from flask import Flask, abort, g, jsonify, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.security import check_password_hash, generate_password_hash

from tambur import InvalidNameError, PublishError, Tambur

MAX_CHARACTERS = 2000
"""Of one message."""


class User(NamedTuple):
    name: str
    password_hash: str
    is_admin: bool = False


# A user's name is also the user id for Tambur, so it must not contain ":".
USERS = {
    name: User(name, **fields)
    for name, fields in json.loads((Path(__file__).parent / "demo_users.json").read_text("utf-8")).items()
}
NOBODY = User("", generate_password_hash(secrets.token_hex(32)))

# True: only admins may enter.
ROOMS = {"lobby": False, "garden": False, "staff": True}

# Each room has two streams: one of its name, and one with this suffix, whose messages only admins receive.
FOR_ADMINS = "-admins"

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(32),
    SESSION_COOKIE_SAMESITE="Lax",
)
tambur = Tambur.from_env()


def may_enter(user: User | None, room: str) -> bool:
    """Decide who may see a room and speak in it. Everything else is forbidden."""
    return user is not None and room in ROOMS and (user.is_admin or not ROOMS[room])


def may_join(user: User | None, stream: str) -> bool:
    """Decide who gets a token for a stream."""
    room = stream.removesuffix(FOR_ADMINS)
    return user is not None and may_enter(user, room) and (room == stream or user.is_admin)


@app.template_global()
def csrf_token() -> str:
    """A secret of the session, which a form on another site cannot know."""
    token: str = session.setdefault("csrf_token", secrets.token_urlsafe())
    return token


@app.before_request
def look_who_asks() -> None:
    g.user = USERS.get(session.get("user", ""))
    if request.method == "POST":
        given = request.form.get("csrf_token", "")
        if not hmac.compare_digest(given.encode(), csrf_token().encode()):
            abort(403)


@app.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    if request.method == "POST":
        # An unknown name also costs a comparison, so that the time taken does not reveal which users exist.
        user = USERS.get(request.form.get("username", ""), NOBODY)
        if check_password_hash(user.password_hash, request.form.get("password", "")):
            session.clear()
            session["user"] = user.name
            return redirect(url_for("index"))
    return render_template("login.html", is_wrong=request.method == "POST")


@app.post("/logout")
def logout() -> ResponseReturnValue:
    session.clear()
    return redirect(url_for("login"))


@app.get("/")
def index() -> ResponseReturnValue:
    return redirect(url_for("room", name="lobby"))


@app.get("/session")
def describe_session() -> ResponseReturnValue:
    """Tell a page that another server delivers what a page of ours has in its HTML."""
    if g.user is None:
        abort(401)
    return jsonify(
        user=g.user.name,
        csrf_token=csrf_token(),
        tambur_url=tambur.api_host,
        api_key=tambur.api_key,
        app_id=tambur.app_id,
    )


@app.get("/rooms/<name>")
def room(name: str) -> ResponseReturnValue:
    if g.user is None:
        return redirect(url_for("login"))
    if not may_enter(g.user, name):
        abort(403)
    return render_template(
        "room.html",
        room=name,
        rooms=[other for other in ROOMS if may_enter(g.user, other)],
        tambur_url=tambur.api_host,
        api_key=tambur.api_key,
        app_id=tambur.app_id,
        max_characters=MAX_CHARACTERS,
    )


@app.post("/rooms/<name>/messages")
def say(name: str) -> ResponseReturnValue:
    if not may_enter(g.user, name):
        abort(403)
    to, text = request.form.get("to"), request.form.get("text", "").strip()
    if to not in ("everybody", "admins") or not 0 < len(text) <= MAX_CHARACTERS:
        abort(400)
    # Anyone with the page's key can subscribe to any stream, but "auth:" messages arrive only with a token.
    stream = name + FOR_ADMINS if to == "admins" else name
    try:
        tambur.publish(f"auth:{stream}", {"from": g.user.name, "to": to, "text": text})
    except PublishError:
        app.logger.exception("a message was not published")
        abort(503)
    return "", 204


@app.post("/tambur-token")
def tambur_token() -> ResponseReturnValue:
    form = request.form
    mode, stream, subscriber_id = form.get("mode"), form.get("stream", ""), form.get("subscriber_id", "")
    if not may_join(g.user, stream):
        abort(403)
    try:
        # The user comes from the session, never from the request.
        if mode == "auth":
            token = tambur.generate_auth_token(stream, subscriber_id)
        elif mode == "presence":
            token = tambur.generate_presence_token(stream, g.user.name, subscriber_id)
        elif mode == "direct":
            token = tambur.generate_direct_token(stream, g.user.name, subscriber_id)
        else:
            abort(403)
    except InvalidNameError as error:
        abort(400, str(error))
    return jsonify(token=token)
