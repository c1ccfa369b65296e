package examples

import (
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"usercast/internal/doctest"
)

// railsFiles are what a Rails app with Devise has in addition to what docs/authentication.md shows.
var railsFiles = map[string]string{
	"app.rb": `
ENV["RAILS_ENV"] = "production"
ENV["DATABASE_URL"] = "sqlite3:state/db.sqlite3"
require "fileutils"
require "redis"
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "devise"
require "rack/handler/webrick"

FileUtils.mkdir_p("state")
REDIS = Redis.new(url: ENV.fetch("REDIS_URL"))

class App < Rails::Application
  config.root = Dir.pwd
  config.eager_load = false
  config.secret_key_base = "of a test" * 8
  config.logger = Logger.new($stderr)
  config.cache_store = :file_store, "state/cache"
  config.session_store :cache_store, key: "_app_session", expire_after: 30.minutes
  config.action_controller.allow_forgery_protection = false
end
App.initialize!

ActiveRecord::Schema.define do
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
  get "/plain/session", to: "plain#show"
  ROUTES
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
    REDIS.publish("user-#{current_user.id}:activity", "hello")
    head :ok
  end
end
`,
}

// tryRails runs what docs/authentication.md shows for Devise, and for Rails without it.
func tryRails(t *testing.T) {
	files := filesOf(t, "../docs/authentication.md", "ruby")
	routes, controller := shown(t, files, "config/routes.rb"), shown(t, files, "app/controllers/usercast_controller.rb")
	maps.Copy(files, railsFiles)
	files["config/routes.rb"] = strings.Replace(railsFiles["config/routes.rb"], "ROUTES", routes, 1)
	without := regexp.MustCompile("`(before_action \\{.*\\})`").FindStringSubmatch(textOf(t, "../docs/authentication.md"))
	if without == nil {
		t.Fatal("docs/authentication.md does not say what to write without Devise")
	}
	files["app/controllers/plain_controller.rb"] = strings.NewReplacer(
		"UsercastController", "PlainController", "before_action :authenticate_user!", without[1], "current_user.id", "session[:user_id]",
	).Replace(controller)
	dir := t.TempDir()
	state := []string{filepath.Join(dir, "state")}
	write(t, dir, files)
	s := doctest.NewSession(t, dir)
	s.Do(doctest.Block{Mark: "run: app", Text: "ruby app.rb"})
	s.Do(hubBlock)

	ada := newBrowser(t, s)
	ada.post("/users/sign_in", "user[email]", "ada@example.com", "user[password]", "secret12", "user[remember_me]", "1")
	stream := ada.open()
	ada.post("/comment")
	stream.want("hello")
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

	ada.ask("DELETE", s.AppURL()+"/users/sign_out", nil)
	stream.want(`{"reason":"kicked"}`)
	stream.WantEnd(t)
	ada.wantChecks(401)
}
