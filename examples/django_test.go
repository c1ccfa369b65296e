package examples

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usercast/internal/doctest"
)

// djangoApp is what a Django project has beside what the pages add to it: users, a way to log
// in and out, and something that happens.
const djangoApp = `
import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="urls",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db"}}, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

call_command("migrate", verbosity=0)
make_server("127.0.0.1", int(os.environ["PORT"]), get_wsgi_application()).serve_forever()
`

const djangoViews = `
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
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
        announce(request.user.pk, {"kind": "comment", "id": 7})
    return HttpResponse()

def log_out(request):
    logout(request)
    return HttpResponse()

@receiver(user_logged_out)
def disconnect(user, **_):
    pk = user.pk
    DISCONNECT
`

// tryDjango does what docs/auth.md and docs/quickstart.md say to a Django project.
func tryDjango(t *testing.T, program string) {
	auth, quickstart := pythonOf(t, "../docs/auth.md"), pythonOf(t, "../docs/quickstart.md")
	urls, view, ok := strings.Cut(auth, "# views.py")
	if !ok {
		t.Fatalf("docs/auth.md has no views.py:\n%s", auth)
	}
	line := `rdb.publish("usercast:user-control", json.dumps({"op": "disconnect", "user": str(pk)}))`
	if text, err := os.ReadFile("../docs/quickstart.md"); err != nil || !strings.Contains(string(text), "`"+line+"`") {
		t.Fatalf("docs/quickstart.md lacks the line %s (%v)", line, err)
	}
	dir := t.TempDir()
	s := doctest.NewSession(t, program, dir)
	quickstart = strings.ReplaceAll(quickstart, "redis://127.0.0.1:6379", s.Redis.URL())
	for name, text := range map[string]string{
		"app.py":   djangoApp,
		"views.py": quickstart + strings.Replace(djangoViews, "DISCONNECT", line, 1) + view,
		"urls.py": "from django.urls import path\nimport views\nurlpatterns = [\n" + urls +
			`path("", views.home), path("login", views.log_in), path("comment", views.comment), path("logout", views.log_out)]`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Do(doctest.Block{Mark: "run: app", Text: "/usr/bin/python3 app.py"})
	s.Do(doctest.Block{Mark: "run: hub", Text: "usercast serve --auth forward --forward-url http://127.0.0.1:3000/usercast/session --allow-origin http://127.0.0.1:3000"})

	ada := newBrowser(t, s)
	stranger := ada.ask("GET", s.PublicURL()+"/events", nil)
	if stranger.StatusCode != 401 {
		t.Errorf("a stream before logging in: %s, want 401", stranger.Status)
	}
	ada.post("/login")
	stream := ada.open()
	ada.post("/comment")
	stream.want(`{"kind": "comment", "id": 7}`)
	ada.post("/logout")
	stream.want(`{"reason":"kicked"}`)
	stream.wantEnd()
	if answer := ada.ask("GET", s.PublicURL()+"/events", nil); answer.StatusCode != 401 {
		t.Errorf("a stream after logging out: %s, want 401", answer.Status)
	}
}

// pythonOf is the Python of a page.
func pythonOf(t *testing.T, file string) (text string) {
	t.Helper()
	for _, b := range doctest.Read(t, file).Blocks {
		if b.Lang == "python" {
			text += b.Text
		}
	}
	return text
}
