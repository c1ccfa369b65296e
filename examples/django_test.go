package examples

import (
	"path/filepath"
	"strings"
	"testing"

	"usercast/internal/doctest"
)

// djangoApp is a Django project without the code of the pages.
const djangoApp = `
import os
os.mkdir("state")
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="urls",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=["middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["templates"]}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "state/db"}}, SESSION_SAVE_EVERY_REQUEST=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

call_command("migrate", verbosity=0)
class Server(ThreadingMixIn, WSGIServer):
    pass

make_server("127.0.0.1", int(os.environ["PORT"]), get_wsgi_application(), Server).serve_forever()
`

const djangoViews = `
import json
import time
from usercast import announce, publish
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import connection, transaction
from django.dispatch import receiver
from django.http import HttpResponse
from django.shortcuts import redirect

def home(request):
    return HttpResponse("home")

def log_in(request):
    login(request, User.objects.get_or_create(username="ada")[0])
    return HttpResponse(str(request.user.pk))

def comment(request):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("create table if not exists comment (id integer)")
            cursor.execute("insert into comment values (7)")
        announce(request.user.pk, {"kind": "comment", "id": 7})
    return HttpResponse()

def comments(request):
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from comment")
        return HttpResponse(str(cursor.fetchone()[0]))

def recent_messages(user):
    publish(f"user-{user.pk}:activity", "late")
    return [{"id": 1, "text": "first"}]

def log_out(request):
    logout(request)
    return HttpResponse()

@receiver(user_logged_in)
def count(user, **_):
    with open("state/logins", "a") as file:
        file.write(f"{user.pk}\n")
`

// djangoSlowReceiver is a receiver of another app. Django calls it after the receiver in docs/logout.md.
const djangoSlowReceiver = `
@receiver(user_logged_out)
def audit(**_):
    time.sleep(0.3)
`

// tryDjango runs the code of the pages in a Django project that saves the session at every request.
func tryDjango(t *testing.T) {
	files := filesOf(t, authPage, "python")
	urls, views := shown(t, files, "urls.py"), shown(t, files, "views.py")+shown(t, filesOf(t, logoutPage, "python"), "views.py")
	rendered := filesOf(t, renderPage, "python")
	views += shown(t, rendered, "views.py, inbox")
	dir := t.TempDir()
	s := doctest.NewSession(t, dir)
	files["app.py"] = djangoApp
	files["usercast.py"] = strings.ReplaceAll(shown(t, filesOf(t, publishPage, "python"), "usercast.py"), "redis://127.0.0.1:6379", s.Redis.URL()) +
		shown(t, rendered, "usercast.py, position")
	files["templates/inbox.html"] = shown(t, filesOf(t, renderPage, "html"), "templates/inbox.html")
	files["views.py"] = djangoViews + views + djangoSlowReceiver
	files["urls.py"] = "from django.urls import path\nimport views\nurlpatterns = [\n" + urls +
		`path("", views.home), path("login", views.log_in), path("comment", views.comment), path("comments", views.comments), path("inbox", views.inbox), path("logout", views.log_out)]`
	write(t, dir, files)
	s.Do(doctest.Block{Mark: "run: app", Text: "/usr/bin/python3 app.py"})
	s.Do(hubBlock)

	wantHostAdvice(t, s)
	ada := newBrowser(t, s)
	ada.post("/login")
	stream := ada.open()
	ada.post("/comment")
	stream.want(`{"kind": "comment", "id": 7}`)
	wantCheckOnlyReads(t, []string{filepath.Join(dir, "state")}, "sessionid", ada)
	ada.wantLogout(stream)

	ada.post("/login")
	ada.wantRendered(hubBlock)
	ada.wantWithoutRedis("/comment", func() int { return ada.number("/comments") })
}
