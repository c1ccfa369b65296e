package examples

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/doctest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
	"usercast/internal/redistest"
)

// laravelRoutes are the routes that the test adds to examples/laravel.
const laravelRoutes = `
use App\Events\OrderShipped;
use Illuminate\Auth\Events\Login;
use Illuminate\Support\Facades\{Event, Hash, Redis};

app('router')->aliasMiddleware('auth', Illuminate\Auth\Middleware\Authenticate::class);
Event::listen(Login::class, fn () => file_put_contents(database_path('logins'), request()->path()."\n", FILE_APPEND));

Route::post('/others', function () {
    Auth::user()->forceFill(['password' => Hash::make('secret', ['rounds' => 4])])->save();
    Auth::logoutOtherDevices('secret');
    return 'ok';
});
Route::post('/broadcast', function () { broadcast(new OrderShipped(5)); return 'ok'; });
Route::post('/team', function () { broadcast(new App\Events\TeamWon()); return 'ok'; });
Route::post('/notify', function () { Auth::user()->notify(new App\Notifications\Notice); return 'ok'; });
Route::post('/token', function () {
    $part = fn ($data) => rtrim(strtr(base64_encode($data), '+/', '-_'), '=');
    $token = $part('{"alg":"HS256"}').'.'.$part(json_encode(['sub' => Auth::id(), 'exp' => time() + 3600]));
    $token .= '.'.$part(hash_hmac('sha256', $token, str_repeat('s', 32), true));
    return response('ok')->cookie('usercast', $token, 60, '/events');
});
Route::post('/prefixed', function () {
    Redis::publish('user-ada', '"prefixed"');
    Redis::publish('usercast:user-control', '{"op":"disconnect","user":"ada"}');
    return 'ok';
});
Route::post('/admin', function (Request $request) { Auth::guard('admin')->login(User::find($request->name)); return 'ok'; });
`

var laravelFiles = map[string]string{
	"app/Events/OrderShipped.php": `<?php
namespace App\Events;
class OrderShipped implements \Illuminate\Contracts\Broadcasting\ShouldBroadcast
{
    public function __construct(public int $order) {}
    public function broadcastOn() { return new \Illuminate\Broadcasting\PrivateChannel('user-ada'); }
}
`,
	"app/Events/TeamWon.php": `<?php
namespace App\Events;
class TeamWon implements \Illuminate\Contracts\Broadcasting\ShouldBroadcast
{
    public function broadcastOn() { return new \Illuminate\Broadcasting\PrivateChannel('team-7'); }
}
`,
	"app/Notifications/Notice.php": `<?php
namespace App\Notifications;
class Notice extends \Illuminate\Notifications\Notification
{
    public function via($user) { return ['broadcast']; }
    public function toArray($user) { return ['text' => 'notified']; }
}
`,
	"app/Models/Message.php": `<?php
namespace App\Models;
class Message
{
    public static function recent($user)
    {
        \App\Providers\UsercastServiceProvider::publish('user-'.$user->name, 'late');
        return [(object) ['id' => 1, 'text' => 'first']];
    }
}
`,
	// Publishes as the app does, and prints the duration in seconds.
	"publish.php": `<?php
$app = require __DIR__.'/bootstrap/app.php';
$app->make(Illuminate\Contracts\Console\Kernel::class)->bootstrap();
$start = microtime(true);
App\Providers\UsercastServiceProvider::publish('user-ada:chat', $argv[1]);
echo microtime(true) - $start;
`,
}

// tryLaravel runs examples/laravel behind nginx and PHP-FPM as docs/authentication.md configures them.
func tryLaravel(t *testing.T) {
	files := filesOf(t, authPage, "php")
	const provider = "app/Providers/UsercastServiceProvider.php"
	for _, shows := range []struct{ page, name, file string }{
		{authPage, provider, provider},
		{authPage, "app/Http/Middleware/ReadOnlySession.php", "app/Http/Middleware/ReadOnlySession.php"},
		{logoutPage, provider + ", in boot()", provider},
		{publishPage, provider + ", publish()", provider},
		{publishPage, "routes/web.php", "routes/web.php"},
	} {
		wantInFile(t, shows.page, shown(t, filesOf(t, shows.page, "php"), shows.name), "laravel/"+shows.file)
	}

	dir := copyOf(t, "laravel")
	write(t, dir, laravelFiles)
	rendered := filesOf(t, renderPage, "php")
	write(t, dir, map[string]string{
		"app/Usercast.php":    "<?php\n" + shown(t, rendered, "app/Usercast.php"),
		"config/services.php": "<?php\n" + shown(t, rendered, "config/services.php"),
	})
	write(t, dir, filesOf(t, renderPage, "blade"))
	edit(t, dir+"/config/view.php", func(text string) string {
		return strings.Replace(text, "'paths' => []", "'paths' => [resource_path('views')]", 1)
	})
	edit(t, dir+"/routes/web.php", func(text string) string {
		return strings.Replace(text, "Auth::logout();", "Auth::logout(); usleep(300000);", 1) + laravelRoutes +
			shown(t, rendered, "routes/inbox.php")
	})
	edit(t, dir+"/app/Models/User.php", func(text string) string {
		return strings.Replace(text, "{", "{ use \\Illuminate\\Notifications\\Notifiable;\n"+
			"public function receivesBroadcastNotificationsOn() { return 'user-'.$this->name; }", 1)
	})
	s := doctest.NewSession(t, dir)
	forHub := startLaravel(t, s, dir)
	hub := func(flags string) {
		s.Do(doctest.Block{Mark: "run: hub", Text: "USERCAST_JWT_SECRET=" + strings.Repeat("s", 32) + " usercast serve " + flags})
	}
	forward := "--auth forward --forward-url http://" + forHub + "/usercast/session --trusted-proxy 127.0.0.1 "
	hub(forward + "--auth-cache 0s")

	state := []string{dir + "/storage/framework/sessions", dir + "/database"}
	ada := newBrowser(t, s)
	ada.hub = s.AppURL() // nginx
	step := func(name string, do func(*testing.T, *browser)) {
		t.Run(name, func(t *testing.T) { do(t, &browser{t, s, ada.hub, ada.client}) })
	}
	ada.post("/login", "name", "ada", "remember", "1")
	step("session checks", func(t *testing.T, ada *browser) {
		wantCheckOnlyReads(t, state, "laravel_session", ada)
		remembered := ada.with(ada.cookies("laravel_session"))
		wantUnchanged(t, state, "session checks with a remember-me cookie", func() { remembered.wantChecks(200) })

		eve := ada.with(nil)
		eve.post("/login", "name", "eve")
		setAge(t, state[:1], 119*time.Minute)
		eve.wantChecks(200)
		setAge(t, state[:1], 121*time.Minute)
		eve.wantChecks(401)
	})
	step("logout", func(t *testing.T, ada *browser) {
		ada.post("/login", "name", "ada", "remember", "1")
		stream := ada.open()
		ada.post("/messages", "to", "ada", "text", "hello")
		stream.want(`"hello"`)
		ada.wantLogout(stream)
	})
	step("logout of other devices", func(t *testing.T, ada *browser) {
		bob, other := ada.with(nil), ada.with(nil)
		bob.post("/login", "name", "bob")
		other.post("/login", "name", "bob")
		other.ask("GET", s.AppURL()+"/", nil) // AuthenticateSession records the password's hash at the first request after the login
		stream := other.open()
		bob.post("/others")
		stream.want(`{"reason":"kicked"}`)
		wantUnchanged(t, state, "session checks of a logged-out device", func() { other.wantChecks(401) })
		bob.wantChecks(200)
	})
	step("rendered page", func(t *testing.T, ada *browser) {
		ada.post("/login", "name", "ada")
		ada.wantRendered(doctest.Block{Mark: "run: hub", Text: "usercast serve " + forward + "--auth-cache 0s"})
	})
	step("Redis connection", func(t *testing.T, ada *browser) {
		ada.post("/login", "name", "ada")
		stream := ada.open()
		s.Do(doctest.Block{Mark: "run", Text: "redis-cli CONFIG SET requirepass secret"})
		defer s.Do(doctest.Block{Mark: "run", Text: "redis-cli -a secret CONFIG SET requirepass ''"})
		for _, client := range []string{"phpredis", "predis"} {
			publishPHP(t, s, dir, client, "secret")
			stream.want(client)
		}
		s.Redis.Freeze()
		defer s.Redis.Thaw()
		for _, client := range []string{"phpredis", "predis"} {
			if seconds := publishPHP(t, s, dir, client, "secret"); seconds > 10 {
				t.Errorf("with %s and an unresponsive Redis, publishing took %.1f s", client, seconds)
			}
		}
	})
	step("forwarded headers of a browser", func(t *testing.T, ada *browser) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", ada.hub+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("X-Forwarded-Port", "1")
		answer, err := ada.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		log := strings.Split(strings.TrimSpace(textOf(t, dir+"/checks.log")), "\n")
		want := "host=" + strings.TrimPrefix(s.AppURL(), "http://") + " port=-"
		if last := log[len(log)-1]; !strings.HasSuffix(last, want) {
			t.Errorf("the app received %q, want %q", last, want)
		}
	})
	step("cache of session checks", func(t *testing.T, ada *browser) {
		hub(forward)
		before := checksSent(t, dir)
		for range 3 { // each page view sets another cookie
			ada.ask("GET", s.AppURL()+"/", nil)
			ada.wantChecks(200)
		}
		if n := checksSent(t, dir) - before; n != 3 {
			t.Errorf("three page views with three streams each sent %d session checks, want 3", n)
		}
	})
	step("broadcast driver", func(t *testing.T, ada *browser) {
		for _, prefix := range []string{"laravel_database_", "laravel-database-"} { // before and since June 2025
			setPrefix(t, dir, prefix)
			hub(forward + strings.ReplaceAll(channelFlags(t, publishPage), "laravel_database_", prefix))
			ada.post("/login", "name", "ada")
			stream := ada.open()
			ada.post("/broadcast")
			stream.want(`{"event":"App\\Events\\OrderShipped","data":{"order":5},"socket":null}`)
			ada.post("/notify")
			stream.want(`"notified"`)
			wantPrefixNamed(t, s.Redis, prefix+"private-user-", func() { ada.post("/broadcast") })
			stream.want(`"order":5`)
			ada.post("/logout")
			stream.want(`{"reason":"kicked"}`)
		}
		setPrefix(t, dir, "laravel_database_")
		groups := regexp.MustCompile("`(--group-prefix laravel_database_\\S+)`").FindStringSubmatch(textOf(t, publishPage))
		if groups == nil {
			t.Fatal("docs/publishing.md does not show the prefix of groups")
		}
		hub("--auth insecure " + channelFlags(t, publishPage) + " " + groups[1])
		stream := ada.openWith("?user=ada&group=7")
		ada.post("/team")
		stream.want(`{"event":"App\\Events\\TeamWon","data":[],"socket":null}`)
	})
	step("default connection, with its prefix", func(t *testing.T, ada *browser) {
		hub(forward + channelFlags(t, logoutPage))
		ada.post("/login", "name", "ada")
		stream := ada.open()
		ada.post("/prefixed")
		stream.want(`"prefixed"`)
		stream.want(`{"reason":"kicked"}`)
	})
	step("two guards", func(t *testing.T, ada *browser) {
		hub(forward + "--auth-cache 0s")
		edit(t, dir+"/config/auth.php", func(text string) string {
			return strings.Replace(text, "'guards' => [", "'guards' => ['admin' => ['driver' => 'session', 'provider' => 'users'], ", 1)
		})
		edit(t, dir+"/app/Providers/UsercastServiceProvider.php", func(text string) string {
			body := regexp.MustCompile(`(?s)\$user = \$request->user\(\);.*?response\('', 401\);\n`)
			return strings.Replace(text, body.FindString(text), shown(t, files, "app/Providers/UsercastServiceProvider.php, with two guards"), 1)
		})
		admin := ada.with(nil)
		admin.post("/admin", "name", "ada")
		wantCheckOnlyReads(t, state, "laravel_session", admin)
		ada.post("/login", "name", "ada")
		for b, want := range map[*browser]string{admin: "admin-ada", ada: "ada"} {
			if answer := b.ask("GET", s.AppURL()+"/usercast/session", nil); answer.Header.Get("X-User-ID") != want {
				t.Errorf("a session check: %s, X-User-ID %q, want %q", answer.Status, answer.Header.Get("X-User-ID"), want)
			}
		}
	})
	step("token in a cookie", func(t *testing.T, ada *browser) {
		hub("--auth jwt")
		ada.post("/token")
		ada.wantChecks(200)
	})
	step("Redis down", func(t *testing.T, ada *browser) {
		ada.post("/login", "name", "ada")
		s.Redis.Kill()
		defer s.Redis.Restart()
		if answer := ada.post("/broadcast"); answer.StatusCode != 500 { // as docs/publishing.md says
			t.Errorf("a broadcast without a queue: %s, want 500", answer.Status)
		}
		ada.wantSoon("/messages", []int{204}, "to", "ada", "text", "Redis is down")
		ada.wantSoon("/logout", []int{204})
	})
}

// wantPrefixNamed requires that usercast check --hear names the prefix of what publish publishes.
func wantPrefixNamed(t *testing.T, server *redistest.Server, prefix string, publish func()) {
	t.Helper()
	p := hubtest.StartProgram(t, nil, "check", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--auth", "insecure", "--redis", server.URL(), "--hear", "1h")
	// The section url comes after the test message of check, which has a subscription of its own.
	server.Await("it receives everything", func() bool {
		return strings.Contains(p.Stdout.String(), "the proxy path was not checked") && slices.ContainsFunc(strings.Split(server.Do("client", "list").(string), "\n"), func(client string) bool {
			return strings.Contains(client, " psub=1 ") && strings.Contains(client, " cmd=psubscribe ")
		})
	})
	publish()
	p.Signal(os.Interrupt)
	p.Wait(t)
	if out := p.Stdout.String(); !strings.Contains(out, "use --channel-prefix '"+prefix+"'") {
		t.Errorf("check does not name the prefix %q:\n%s", prefix, out)
	}
}

// setPrefix sets the prefix of Laravel's Redis connections.
func setPrefix(t *testing.T, dir, prefix string) {
	t.Helper()
	line := regexp.MustCompile(`'options' => \['prefix' => .*\],`)
	edit(t, dir+"/config/database.php", func(text string) string {
		return line.ReplaceAllLiteralString(text, "'options' => ['prefix' => '"+prefix+"'], // edited by the test")
	})
}

// channelFlags returns the flags for Laravel's prefix that a page shows.
func channelFlags(t *testing.T, page string) string {
	t.Helper()
	flags := regexp.MustCompile(`usercast serve (--channel-prefix laravel\S+ --control-channel \S+)`).FindStringSubmatch(textOf(t, page))
	if flags == nil {
		t.Fatalf("%s does not show the flags for Laravel's prefix", page)
	}
	return flags[1]
}

// startLaravel starts PHP-FPM and nginx, which serves browsers at s.AppURL. It returns the address for session checks.
func startLaravel(t *testing.T, s *doctest.Session, dir string) (forHub string) {
	t.Helper()
	fpm, err := filepath.Glob("/usr/sbin/php-fpm*")
	if err != nil || len(fpm) == 0 {
		need.Missing(t, "php-fpm", "apt-get install php-fpm")
	}
	nginx := need.Program(t, "nginx")
	account, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var servers string
	for _, b := range doctest.Read(t, authPage).Blocks {
		if b.Lang == "nginx" && strings.Contains(b.Text, "fastcgi_pass") {
			servers += b.Text
		}
	}
	forHub = "127.0.0.1:" + strconv.Itoa(redistest.FreePort(t))
	browsers := strings.TrimPrefix(s.AppURL(), "http://")
	servers = strings.NewReplacer(
		"listen 80;", "listen "+browsers+";", "listen 127.0.0.1:3000;", "access_log checks.log checks; listen "+forHub+";", "127.0.0.1:8080", s.Addr("8080"),
		"/srv/app", dir, "/run/php/php8.2-fpm.sock", dir+"/fpm.sock", "include fastcgi_params", "include /etc/nginx/fastcgi_params",
	).Replace(servers)
	master := ""
	if account.Uid == "0" {
		master = "user root;" // its workers must read the directory of the test
	}
	write(t, dir, map[string]string{
		"nginx.conf": master + `
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    log_format checks "$request host=$http_x_forwarded_host port=$http_x_forwarded_port";
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
` + servers + `
}
`,
		"fpm.conf": fmt.Sprintf(`
[global]
error_log = /proc/self/fd/2
[www]
listen = %s/fpm.sock
user = %s
pm = static
pm.max_children = 5
clear_env = no
php_admin_value[opcache.revalidate_freq] = 0
`, dir, account.Username),
	})
	s.Do(doctest.Block{Mark: "run", Text: "touch database/database.sqlite && php artisan migrate --force"})
	startFPM(t, fpm[0], dir, "BROADCAST_DRIVER=redis", "REDIS_URL="+s.Redis.URL(), "USERCAST_ADMIN=http://"+s.Addr("8081"))
	s.Do(doctest.Block{Mark: "run: app", Text: fmt.Sprintf("exec %s -p %s -e stderr -c %s/nginx.conf", nginx, dir, dir)})
	return forHub
}

// startFPM runs PHP-FPM until the test ends. PHP-FPM leaves the process group in which it was started.
func startFPM(t *testing.T, program, dir string, env ...string) {
	t.Helper()
	log, err := os.Create(dir + "/fpm.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "--allow-to-run-as-root", "--nodaemonize", "--fpm-config", dir+"/fpm.conf")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was stopped by a signal
		if t.Failed() {
			t.Logf("PHP-FPM wrote:\n%s\nLaravel wrote:\n%s", textOf(t, dir+"/fpm.log"), laravelLog(dir))
		}
	})
}

// laravelLog returns Laravel's log, which may be empty.
func laravelLog(dir string) string {
	text, err := os.ReadFile(dir + "/storage/logs/laravel.log")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// checksSent counts the session checks in nginx's log.
func checksSent(t *testing.T, dir string) int {
	t.Helper()
	return strings.Count(textOf(t, dir+"/checks.log"), "GET /usercast/session")
}

// publishPHP publishes the client's name, and returns the duration.
func publishPHP(t *testing.T, s *doctest.Session, dir, client, password string) (seconds float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hubtest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "php", "publish.php", client)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "REDIS_URL="+s.Redis.URL(), "REDIS_PASSWORD="+password, "REDIS_CLIENT="+client)
	out, err := cmd.CombinedOutput()
	if err == nil {
		seconds, err = strconv.ParseFloat(string(out), 64)
	}
	if err != nil {
		t.Fatalf("publish with %s: %v\n%s", client, err, out)
	}
	return seconds
}

// edit replaces the text of a file.
func edit(t *testing.T, file string, change func(string) string) {
	t.Helper()
	before := textOf(t, file)
	after := change(before)
	if after == before {
		t.Fatalf("%s has changed: the text to replace was not found", file)
	}
	write(t, filepath.Dir(file), map[string]string{filepath.Base(file): after})
}
