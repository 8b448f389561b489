"""A chat with rooms, on Django and Tambur: presence, direct messages, and notes that only admins see."""

from __future__ import annotations

import logging

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.generic import RedirectView

from tambur import InvalidNameError, PublishError, Tambur

MAX_CHARACTERS = 2000
"""Of one message."""

# True: only admins may enter.
ROOMS = {"lobby": False, "garden": False, "staff": True}

# Each room has two streams: one of its name, and one with this suffix, whose messages only admins receive.
FOR_ADMINS = "-admins"

logger = logging.getLogger(__name__)
tambur = Tambur.from_env()


def may_enter(user: AbstractBaseUser | AnonymousUser, room: str) -> bool:
    """Decide who may see a room and speak in it. Everything else is forbidden."""
    return isinstance(user, User) and room in ROOMS and (user.is_staff or not ROOMS[room])


def may_join(user: AbstractBaseUser | AnonymousUser, stream: str) -> bool:
    """Decide who gets a token for a stream."""
    room = stream.removesuffix(FOR_ADMINS)
    return isinstance(user, User) and may_enter(user, room) and (room == stream or user.is_staff)


@login_required
def room(request: HttpRequest, name: str) -> HttpResponse:
    if not may_enter(request.user, name):
        raise PermissionDenied
    context = {
        "room": name,
        "rooms": [other for other in ROOMS if may_enter(request.user, other)],
        "tambur_url": tambur.api_host,
        "api_key": tambur.api_key,
        "app_id": tambur.app_id,
        "max_characters": MAX_CHARACTERS,
    }
    return render(request, "room.html", context)


@require_POST
def say(request: HttpRequest, name: str) -> HttpResponse:
    if not may_enter(request.user, name):
        raise PermissionDenied
    to, text = request.POST.get("to"), request.POST.get("text", "").strip()
    if to not in ("everybody", "admins") or not 0 < len(text) <= MAX_CHARACTERS:
        return HttpResponseBadRequest()
    # Anyone with the page's key can subscribe to any stream, but "auth:" messages arrive only with a token.
    stream = name + FOR_ADMINS if to == "admins" else name
    try:
        tambur.publish(f"auth:{stream}", {"from": request.user.get_username(), "to": to, "text": text})
    except PublishError:
        logger.exception("a message was not published")
        return HttpResponse(status=503)
    return HttpResponse(status=204)


@require_POST
def tambur_token(request: HttpRequest) -> HttpResponse:
    form, user = request.POST, request.user
    mode, stream, subscriber_id = form.get("mode"), form.get("stream", ""), form.get("subscriber_id", "")
    if not may_join(user, stream):
        raise PermissionDenied
    try:
        # The user comes from the session, never from the request.
        if mode == "auth":
            token = tambur.generate_auth_token(stream, subscriber_id)
        elif mode == "presence":
            token = tambur.generate_presence_token(stream, user.get_username(), subscriber_id)
        elif mode == "direct":
            token = tambur.generate_direct_token(stream, user.get_username(), subscriber_id)
        else:
            raise PermissionDenied
    except InvalidNameError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    return JsonResponse({"token": token})


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="room"), {"name": "lobby"}, name="index"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("rooms/<name>", room, name="room"),
    path("rooms/<name>/messages", say, name="say"),
    path("tambur-token", tambur_token, name="tambur_token"),
]
