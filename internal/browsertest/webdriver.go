package browsertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/need"
)

// WebDriver is a Firefox or a WebKitGTK that is controlled by WebDriver
// (https://www.w3.org/TR/webdriver2/). It is safe for concurrent use.
type WebDriver struct {
	tb testing.TB

	mu     sync.Mutex // allows one command at a time; guards the fields below
	send   func(command string, params map[string]any) (json.RawMessage, error)
	window string // the current window of commands
	used   bool   // the initial window of the browser is in use
}

// Tab is a page in a WebDriver browser. Its methods fail the test on an error.
type Tab struct {
	tb      testing.TB
	browser *WebDriver
	window  string
}

// StartFirefox starts a headless Firefox that accepts any certificate and ends with the test. prefs are additional lines
// of its user.js.
func StartFirefox(tb testing.TB, prefs ...string) *WebDriver {
	tb.Helper()
	need.Program(tb, Firefox)
	dir := tb.TempDir()
	const common = `
user_pref("marionette.port", 0); // any free port, which is written to MarionetteActivePort
user_pref("network.proxy.type", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("browser.startup.page", 0);
user_pref("dom.ipc.processPrelaunch.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("nimbus.rollouts.enabled", false);
`
	if err := os.WriteFile(filepath.Join(dir, "user.js"), []byte(common+strings.Join(prefs, "\n")), 0o600); err != nil {
		tb.Fatal(err)
	}
	run(tb, nil, []string{"HOME=" + dir}, Firefox, "--headless", "--no-remote", "--profile", dir, "--marionette",
		"--remote-allow-system-access") // for NotifyNetworkChange
	var port []byte
	until(tb, "Firefox accepts commands", func() bool {
		port, _ = os.ReadFile(filepath.Join(dir, "MarionetteActivePort"))
		return len(port) > 0
	})
	conn, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	m := &marionette{conn: conn, in: bufio.NewReader(conn)}
	if _, err := m.read(); err != nil { // its greeting
		tb.Fatalf("Firefox: %v", err)
	}
	return newWebDriver(tb, m.send, nil)
}

// StartWebKit starts a WebKitGTK on a separate display. Both end with the test. env are environment variables for it, as
// NAME=value.
func StartWebKit(tb testing.TB, env ...string) *WebDriver {
	tb.Helper()
	need.Program(tb, "Xvfb")
	need.Program(tb, WebKit)
	browsers, _ := filepath.Glob("/usr/lib/*/webkit2gtk-4.1/MiniBrowser")
	if len(browsers) == 0 {
		need.Missing(tb, "MiniBrowser of WebKitGTK 4.1", "apt-get install webkit2gtk-driver")
	}
	dir := tb.TempDir()
	read, write, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer read.Close()
	run(tb, write, nil, "Xvfb", "-displayfd", "3", "-screen", "0", "1280x1024x24", "-nolisten", "tcp")
	_ = write.Close()
	display, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		tb.Fatalf("Xvfb: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	run(tb, nil, append([]string{
		"DISPLAY=:" + strings.TrimSpace(display), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir,
		"LANG=en_US.UTF-8", // with C.UTF-8, navigator.language is not a language tag
		"NO_AT_BRIDGE=1", "GTK_A11Y=none",
		"WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1", // the sandbox needs permissions that are missing in a container
	}, env...), WebKit, "--host=127.0.0.1", "--port="+port)
	w := &webKit{url: "http://127.0.0.1:" + port + "/session"}
	until(tb, "WebKitWebDriver accepts commands", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return newWebDriver(tb, w.send, map[string]any{
		"webkitgtk:browserOptions": map[string]any{"binary": browsers[0], "args": []string{"--automation"}},
	})
}

// Programs, for need.Program.
const (
	Firefox = "firefox-esr"
	WebKit  = "WebKitWebDriver"
)

func newWebDriver(tb testing.TB, send func(string, map[string]any) (json.RawMessage, error), capabilities map[string]any) *WebDriver {
	tb.Helper()
	b := &WebDriver{tb: tb, send: send}
	if _, err := send("NewSession", map[string]any{"capabilities": map[string]any{"alwaysMatch": capabilities}}); err != nil {
		tb.Fatalf("start a browser session: %v", err)
	}
	tb.Cleanup(func() { _, _ = send("DeleteSession", nil) })
	if err := b.command("GetWindowHandle", nil, &b.window); err != nil {
		tb.Fatal(err)
	}
	return b
}

// Open opens a URL in a new tab. The tab is closed with the browser.
func (b *WebDriver) Open(tb testing.TB, url string) *Tab {
	tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used {
		var created struct{ Handle string }
		if err := b.command("NewWindow", map[string]any{"type": "tab"}, &created); err != nil {
			tb.Fatalf("open a tab: %v", err)
		}
		if err := b.switchTo(created.Handle); err != nil {
			tb.Fatalf("open a tab: %v", err)
		}
	}
	b.used = true
	if err := b.command("Navigate", map[string]any{"url": url}, nil); err != nil {
		tb.Fatalf("open %s: %v", url, err)
	}
	return &Tab{tb, b, b.window}
}

// inPage evaluates an expression in the scope of the page; Firefox wraps the page's window. inDocument evaluates one
// that can use the document, but not the page's own variables. It also works if the page's policy forbids eval.
const (
	inPage     = "return String((window.wrappedJSObject ?? window).eval(arguments[0]))"
	inDocument = "return String(%s)"
)

// Text returns the value of a JavaScript expression as a string.
func (t *Tab) Text(expression string) string {
	t.tb.Helper()
	return t.text(inPage, expression)
}

// UntilDocument waits until a JavaScript expression about the document is true. The page's own variables
// cannot be used in it.
func (t *Tab) UntilDocument(expression string) {
	t.tb.Helper()
	script := fmt.Sprintf(inDocument, "Boolean("+expression+")")
	until(t.tb, expression, func() bool { return t.text(script, "") == "true" })
}

func (t *Tab) text(script, argument string) string {
	t.tb.Helper()
	text, err := t.browser.text(t.window, script, argument)
	if err != nil {
		t.tb.Fatalf("in the browser: %v", err)
	}
	return text
}

// Until waits until a JavaScript expression is true.
func (t *Tab) Until(expression string) {
	t.tb.Helper()
	until(t.tb, expression, func() bool { return t.Text("Boolean("+expression+")") == "true" })
}

// Go opens another URL in the tab.
func (t *Tab) Go(url string) {
	t.tb.Helper()
	t.do("Navigate", map[string]any{"url": url})
}

// Back goes back to the previous page.
func (t *Tab) Back() {
	t.tb.Helper()
	t.do("Back", nil)
}

func (t *Tab) do(command string, params map[string]any) {
	t.tb.Helper()
	t.browser.mu.Lock()
	defer t.browser.mu.Unlock()
	err := t.browser.switchTo(t.window)
	if err == nil {
		err = t.browser.command(command, params, nil)
	}
	if err != nil {
		t.tb.Fatalf("in the browser: %v", err)
	}
}

// NotifyNetworkChange sends the notification that Firefox receives from the system when the network changes, for
// example when a device joins another Wi-Fi network. Connections stay open.
func (b *WebDriver) NotifyNetworkChange() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.command("Marionette:SetContext", map[string]any{"value": "chrome"}, nil); err != nil {
		return err
	}
	script := "Services.obs.notifyObservers(null, 'network:link-status-changed', 'changed')"
	err := b.command("ExecuteScript", map[string]any{"script": script}, nil)
	return errors.Join(err, b.command("Marionette:SetContext", map[string]any{"value": "content"}, nil))
}

// switchTo sets the current window of commands.
func (b *WebDriver) switchTo(window string) error {
	if b.window == window {
		return nil
	}
	if err := b.command("SwitchToWindow", map[string]any{"handle": window}, nil); err != nil {
		return err
	}
	b.window = window
	return nil
}

func (b *WebDriver) text(window, script, argument string) (text string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.switchTo(window); err != nil {
		return "", err
	}
	return text, b.command("ExecuteScript", map[string]any{"script": script, "args": []string{argument}}, &text)
}

// command sends a command, and stores its value in result unless that is nil.
func (b *WebDriver) command(name string, params map[string]any, result any) error {
	value, err := b.send(name, params)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(value, result)
}

// run starts a program. When the test ends, it kills the program and the processes that it has started.
func run(tb testing.TB, file *os.File, env []string, name string, args ...string) {
	tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for remaining child processes that keep its output open
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if tb.Failed() {
			tb.Logf("%s wrote:\n%s", name, log.String())
		}
	})
}

func until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	// The interval grows with the time waited so far, because each check uses CPU time in the browser.
	for start := time.Now(); !done(); time.Sleep(min(max(time.Since(start)/8, 10*time.Millisecond), 100*time.Millisecond)) {
		if time.Since(start) > patience {
			tb.Fatalf("timeout after %v while waiting until %s", patience, what)
		}
	}
}

// marionette is Firefox's protocol for WebDriver commands: the length, a colon, and JSON.
type marionette struct {
	conn net.Conn
	in   *bufio.Reader
	last int // the last message's id
}

func (m *marionette) send(command string, params map[string]any) (json.RawMessage, error) {
	if params == nil {
		params = map[string]any{}
	}
	if command == "NewSession" { // its parameters are the capabilities themselves
		params = map[string]any{"acceptInsecureCerts": true}
	}
	if !strings.Contains(command, ":") {
		command = "WebDriver:" + command
	}
	m.last++
	message, err := json.Marshal([]any{0, m.last, command, params})
	if err != nil {
		return nil, err
	}
	_ = m.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(message), message); err != nil {
		return nil, err
	}
	reply, err := m.read()
	if err != nil {
		return nil, err
	}
	var parts []json.RawMessage // 1, id, error, result
	if err := json.Unmarshal(reply, &parts); err != nil || len(parts) != 4 {
		return nil, fmt.Errorf("unexpected reply %s", reply)
	}
	if string(parts[2]) != "null" {
		return nil, errors.New(string(parts[2]))
	}
	return value(parts[3]), nil
}

func (m *marionette) read() ([]byte, error) {
	size, err := m.in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil {
		return nil, err
	}
	message := make([]byte, n)
	_, err = io.ReadFull(m.in, message)
	return message, err
}

// webKit is WebDriver over HTTP.
type webKit struct{ url string }

var webDriverRequests = map[string][2]string{ // method and path
	"NewSession":      {http.MethodPost, ""},
	"DeleteSession":   {http.MethodDelete, ""},
	"GetWindowHandle": {http.MethodGet, "/window"},
	"NewWindow":       {http.MethodPost, "/window/new"},
	"SwitchToWindow":  {http.MethodPost, "/window"},
	"Navigate":        {http.MethodPost, "/url"},
	"Back":            {http.MethodPost, "/back"},
	"ExecuteScript":   {http.MethodPost, "/execute/sync"},
}

func (w *webKit) send(command string, params map[string]any) (json.RawMessage, error) {
	how := webDriverRequests[command]
	if params == nil {
		params = map[string]any{}
	}
	body, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(how[0], w.url+how[1], bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(string(reply))
	}
	result := value(reply)
	if command == "NewSession" {
		var session struct{ SessionID string }
		if err := json.Unmarshal(result, &session); err != nil {
			return nil, err
		}
		w.url += "/" + session.SessionID
	}
	return result, nil
}

// value returns the member value of a reply, or the reply itself if the member is missing.
func value(reply json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(reply, &members) == nil {
		if v, ok := members["value"]; ok {
			return v
		}
	}
	return reply
}
