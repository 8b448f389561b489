"""The how-to page for Django: its files are written out as they stand there, and run."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tambur import Tambur
from tambur.server import Server

from ..support.app import subscriber
from ..support.browser import TIMEOUT_S, wait, wait_for_script
from ..support.howto import python, serving, write_files

DJANGO_SETTINGS = """
SECRET_KEY = "secret"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = "urls"
"""

DJANGO_TESTS = """
from unittest import mock

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.test import RequestFactory, TestCase, TransactionTestCase

import messaging
import orders
from tambur.testing import RecordingTambur
from tokens import tambur_token


class Order:
    dish = "soup"

    def save(self):
        pass


class PublishingTest(TransactionTestCase):
    def test_there_is_one_client(self):
        assert messaging.tambur() is messaging.tambur()

    def test_an_order_is_placed_whether_it_can_be_published_or_not(self):
        with self.assertLogs("django.db.backends.base", "ERROR"):
            orders.place(Order())


    def test_a_publish_in_a_transaction_that_is_rolled_back_is_not_sent(self):
        with RecordingTambur() as recorder, mock.patch("orders.tambur", return_value=recorder):
            with transaction.atomic():
                orders.place(Order())
                transaction.set_rollback(True)
            assert recorder.published == []
            with transaction.atomic():
                orders.place(Order())
                assert recorder.published == []
            assert recorder.published == [("auth:kitchen", "soup")]


class TokenTest(TestCase):
    def ask(self, user, **fields):
        request = RequestFactory().post("/", {"mode": "presence", "stream": "kitchen", "subscriber_id": "id"} | fields)
        request.user = user
        return tambur_token(request)

    def test_each_user_gets_only_permitted_tokens(self):
        alice = User.objects.create(username="alice")
        admin = User.objects.create(username="admin", is_staff=True)
        make = messaging.tambur()
        assert self.ask(AnonymousUser()).status_code == 403
        assert self.ask(alice).content.decode() == make.generate_presence_token("kitchen", "alice", "id")
        assert self.ask(alice, mode="direct").content.decode() == make.generate_direct_token("kitchen", "alice", "id")
        assert self.ask(admin, mode="auth").content.decode() == make.generate_auth_token("kitchen", "id")
        assert self.ask(alice, mode="auth").status_code == 403
        assert self.ask(alice, stream="other").status_code == 403
        assert self.ask(alice, mode="nonsense").status_code == 403
        assert self.ask(alice, subscriber_id="x:id").status_code == 400
"""


def test_the_django_page_and_the_tests_for_it(tmp_path: Path) -> None:
    write_files(tmp_path, "django.md", "testing.md")
    (tmp_path / "settings.py").write_text(DJANGO_SETTINGS)
    (tmp_path / "test_pages.py").write_text(DJANGO_TESTS)
    said = python(
        tmp_path,
        "django",
        "test",
        "--settings",
        "settings",
        "test_orders",
        "test_pages",
        TAMBUR_URL="http://key:secret@127.0.0.1:9/app/shop",
    )
    assert "Ran 6 tests" in said


# The page leaves these to the reader: settings, a log-in, and the address of the async view.
SITE = """
from pathlib import Path

from django.core.asgi import get_asgi_application

SECRET_KEY = "secret"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
HERE = Path(__file__).parent
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "database"}}
ROOT_URLCONF = "site_urls"
LOGIN_URL = "/login"
application = get_asgi_application()
"""

SITE_URLS = """
from announcements import announce
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.shortcuts import redirect
from django.urls import path
from urls import urlpatterns


def enter(request):
    user, _ = User.objects.get_or_create(username="cook", defaults={"is_staff": True})
    login(request, user)
    return redirect("/kitchen")


urlpatterns = [*urlpatterns, path("login", enter), path("announce", announce)]
"""


def test_the_page_of_a_logged_in_user_receives_protected_messages(
    driver: Chrome, tmp_path: Path, server: Server, url: str
) -> None:
    write_files(tmp_path, "django.md")
    (tmp_path / "site_settings.py").write_text(SITE)
    (tmp_path / "site_urls.py").write_text(SITE_URLS)
    python(tmp_path, "django", "migrate", "--settings", "site_settings")
    variables = {"TAMBUR_URL": url, "DJANGO_SETTINGS_MODULE": "site_settings"}
    with (
        serving(tmp_path, "uvicorn", "site_settings:application", "--port", "0", **variables) as address,
        subscriber(server, "news") as reader,
    ):
        driver.get(f"{address}/kitchen")
        wait_for_script(driver, "kitchen.enabled_modes.includes('auth')")
        Tambur.from_url(url).publish("auth:kitchen", "soup")
        wait(driver, lambda d: [i.text for i in d.find_elements(By.CSS_SELECTOR, "#dishes li")] == ["soup"])
        driver.get(f"{address}/announce")
        assert reader.receive(TIMEOUT_S).text == "Hello, everybody"
