package examples

import (
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"usercast/internal/doctest"
)

// railsFiles are the files of a Rails app with Devise, except those in docs/authentication.md.
var railsFiles = map[string]string{
	"app.rb": `
ENV["RAILS_ENV"] = "production"
ENV["DATABASE_URL"] = "sqlite3:state/db.sqlite3"
require "fileutils"
require "redis"
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "action_view/railtie"
require "devise"
require "rack/handler/webrick"

FileUtils.mkdir_p("state")

class App < Rails::Application
  config.root = Dir.pwd
  config.eager_load = false
  config.secret_key_base = "of a test" * 8
  config.logger = Logger.new($stderr)
  config.cache_store = :file_store, "state/cache"
  config.session_store ENV.fetch("SESSION_STORE").to_sym, key: "_app_session", expire_after: 30.minutes
  config.action_controller.allow_forgery_protection = false
  config.hosts << "127.0.0.1"
end
App.initialize!

ActiveRecord::Schema.define do
  create_table :comments do |t|
    t.integer :author_id
  end
  create_table :users do |t|
    t.string :email, :encrypted_password, default: ""
    t.datetime :remember_created_at, :current_sign_in_at, :last_sign_in_at
    t.integer :sign_in_count, default: 0
    t.string :current_sign_in_ip, :last_sign_in_ip
    t.timestamps
  end
end
User.create!(email: "ada@example.com", password: "secret12")
Warden::Manager.after_authentication do |user, auth, _|
  File.write("state/logins", "#{user.id}\n", mode: "a") unless auth.env["devise.skip_trackable"]
end
Rack::Handler::WEBrick.run(App, Host: "127.0.0.1", Port: ENV.fetch("PORT"), AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN))
`,
	"config/initializers/devise.rb": `
require "devise/orm/active_record"
Devise.setup do |config|
  config.mailer_sender = "app@example.com"
  config.timeout_in = 30.minutes
  config.stretches = 1
end
`,
	"config/routes.rb": `
Rails.application.routes.draw do
  root to: "home#home"
  post "/plain_login", to: "home#plain_login"
  post "/comment", to: "home#comment"
  get "/comments", to: "home#comments"
  get "/inbox", to: "inbox#show"
  get "/plain/session", to: "plain#show"
  ROUTES
end
`,
	"app/models/message.rb": `
class Message
  def self.recent(user)
    Usercast.publish("user-#{user.id}:activity", "late")
    [OpenStruct.new(id: 1, text: "first")]
  end
end
`,
	"app/models/user.rb": `
class User < ActiveRecord::Base
  devise :database_authenticatable, :rememberable, :trackable, :timeoutable
end
`,
	"app/controllers/application_controller.rb": `
class ApplicationController < ActionController::Base
end
`,
	"app/controllers/home_controller.rb": `
class HomeController < ApplicationController
  def home
    render plain: "home"
  end

  def plain_login
    session[:user_id] = 7
    head :ok
  end

  def comment
    Comment.create!(author_id: current_user.id)
    head :ok
  end

  def comments
    render plain: Comment.count
  end
end
`,
}

// tryRails runs the code of the pages for Devise, and for Rails without it, with server-side sessions and with sessions in
// the cookie.
func tryRails(t *testing.T) {
	for _, store := range []string{"cache_store", "cookie_store"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			tryRailsWith(t, store)
		})
	}
}

func tryRailsWith(t *testing.T, store string) {
	files := filesOf(t, authPage, "ruby")
	logout, publishing := filesOf(t, logoutPage, "ruby"), filesOf(t, publishPage, "ruby")
	routes, controller := shown(t, files, "config/routes.rb")+shown(t, logout, "config/routes.rb"), shown(t, files, "app/controllers/usercast_controller.rb")
	maps.Copy(files, logout)
	maps.Copy(files, publishing)
	maps.Copy(files, railsFiles)
	rendered := filesOf(t, renderPage, "ruby")
	files["app/lib/usercast.rb"] = inModule(t, files["app/lib/usercast.rb"], shown(t, rendered, "app/lib/usercast.rb, position"))
	files["app/controllers/inbox_controller.rb"] = shown(t, rendered, "app/controllers/inbox_controller.rb")
	maps.Copy(files, filesOf(t, renderPage, "erb"))
	files["app/models/comment.rb"] = "class Comment < ActiveRecord::Base\n" + shown(t, publishing, "app/models/comment.rb") + "end\n"
	files["config/routes.rb"] = strings.Replace(railsFiles["config/routes.rb"], "ROUTES", routes, 1)
	without := regexp.MustCompile("replace the line `([^`]+)` with\\s+`([^`]+)`, and `([^`]+)` in `show` with\\s+`([^`]+)`").FindStringSubmatch(textOf(t, authPage))
	if without == nil {
		t.Fatal("docs/authentication.md does not contain the code without Devise")
	}
	files["app/controllers/plain_controller.rb"] = strings.NewReplacer(
		"UsercastController", "PlainController", without[1], without[2], without[3], without[4],
	).Replace(controller)
	dir := t.TempDir()
	state := []string{filepath.Join(dir, "state")}
	write(t, dir, files)
	s := doctest.NewSession(t, dir, "SESSION_STORE="+store)
	s.Do(doctest.Block{Mark: "run: app", Text: "ruby app.rb"})
	s.Do(hubBlock)

	ada := newBrowser(t, s)
	ada.post("/users/sign_in", "user[email]", "ada@example.com", "user[password]", "secret12", "user[remember_me]", "1")
	stream := ada.open()
	ada.post("/comment")
	stream.want(`{"kind":"comment","id":1}`)
	wantRedirectWithoutAccept(t, s)
	wantHostAdvice(t, s)
	stream.Close()
	ada.wantRendered(hubBlock)
	ada.wantWithoutRedis("/comment", func() int { return ada.number("/comments") })
	stream = ada.open()
	wantCheckOnlyReads(t, state, "_app_session", ada)

	remembered := ada.with(ada.cookies("_app_session"))
	wantUnchanged(t, state, "session checks with a remember-me cookie", func() { remembered.wantChecks(200) })

	plain := newBrowser(t, s)
	wantUnchanged(t, state, "session checks of a visitor without a cookie, without Devise", func() {
		if answer := plain.ask("GET", s.AppURL()+"/plain/session", nil); answer.StatusCode != 401 {
			t.Errorf("a session check without Devise: %s, want 401", answer.Status)
		}
	})
	plain.post("/plain_login")
	wantUnchanged(t, state, "session checks without Devise", func() {
		if answer := plain.ask("GET", s.AppURL()+"/plain/session", nil); answer.Header.Get("X-User-ID") != "7" {
			t.Errorf("a session check without Devise: %s, %v", answer.Status, answer.Header)
		}
	})

	old := ada.with(ada.cookies())
	if answer := ada.ask("DELETE", s.AppURL()+"/users/sign_out", nil); answer.StatusCode >= 400 {
		t.Errorf("the logout: %s", answer.Status)
	}
	stream.want(`{"reason":"kicked"}`)
	stream.WantEnd(t)
	ada.wantChecks(401)
	if store == "cookie_store" {
		old.wantChecks(200) // as docs/logout.md says: the app cannot revoke it
	} else {
		old.wantChecks(401)
	}
}

// wantRedirectWithoutAccept checks that a plain request is redirected to the login page, and a request of the hub is not.
func wantRedirectWithoutAccept(t *testing.T, s *doctest.Session) {
	t.Helper()
	stranger := newBrowser(t, s)
	stranger.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if answer := stranger.ask("GET", s.AppURL()+"/usercast/session", nil); answer.StatusCode != 302 {
		t.Errorf("a session check without Accept: %s, want 302", answer.Status)
	}
	for _, b := range doctest.Read(t, "../docs/quickstart.md").Blocks {
		if strings.Contains(b.Text, "/usercast/session") && strings.HasPrefix(b.Text, "curl ") {
			b.Text = strings.Replace(b.Text, "-H 'Cookie: session=42' ", "", 1)
			s.Do(b)
			s.Do(doctest.Block{Mark: "output", Line: b.Line, Text: "HTTP/1.1 401 …\n…\n"})
			b.Text = strings.Replace(b.Text, "-H 'Accept: application/json' -H 'X-Requested-With: XMLHttpRequest' ", "", 1)
			s.Do(b) // curl now sends Accept: */*
			s.Do(doctest.Block{Mark: "output", Line: b.Line, Text: "HTTP/1.1 302 …\n…\n"})
			return
		}
	}
	t.Error("docs/quickstart.md does not show a session check with curl")
}

// inModule inserts code before the last end of a Ruby file.
func inModule(t *testing.T, text, code string) string {
	t.Helper()
	at := strings.LastIndex(text, "end\n")
	if at < 0 {
		t.Fatalf("the file is not a module:\n%s", text)
	}
	return text[:at] + code + text[at:]
}
