package helm

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Settings of various sizes and types. Numbers without quotes are floats in Helm.
const numbers = `
settings:
  max-payload: 1048576
  queue: 1000000
  queue-bytes: 2097152
  queue-total-bytes: 268435456
  send-buffer: 1048576
  history-per-user: 12345678
  history-bytes: 67108864
  max-clients: 16777217
  max-clients-per-user: 1000000
  auth-concurrency: 32
  console-tail: true
  max-age: 50m
tolerations: [{key: x, operator: Exists, effect: NoExecute, tolerationSeconds: 1000000}]
`

func TestLargeNumbersAreRenderedWithoutExponent(t *testing.T) {
	for name, values := range map[string]string{"values": minimal + numbers, "durations": minimal + "drainSeconds: 1000000\nterminationGracePeriodSeconds: 2000000\nreplicas: 1000000"} {
		_, pod, c := decoded(t, values).pod(t)
		for variable, value := range env(c) {
			if strings.Contains(value, "e+") {
				t.Errorf("%s: %s is %q", name, variable, value)
			}
		}
		got := env(c)
		for variable, want := range map[string]string{
			"USERCAST_MAX_PAYLOAD": "1048576", "USERCAST_HISTORY_PER_USER": "12345678", "USERCAST_MAX_CLIENTS": "16777217",
			"USERCAST_AUTH_CONCURRENCY": "32", "USERCAST_CONSOLE_TAIL": "true", "USERCAST_MAX_AGE": "50m",
		} {
			if name == "values" && got[variable] != want {
				t.Errorf("%s is %q, want %q", variable, got[variable], want)
			}
		}
		if name == "values" && *pod.Tolerations[0].TolerationSeconds != 1000000 {
			t.Errorf("%+v", pod.Tolerations)
		}
		if name == "durations" && (got["USERCAST_DRAIN"] != "1000000s" || *pod.TerminationGracePeriodSeconds != 2000000) {
			t.Errorf("USERCAST_DRAIN is %q, the grace period %d", got["USERCAST_DRAIN"], *pod.TerminationGracePeriodSeconds)
		}
	}
	files, err := render(minimal + "replicas: 1000000")
	if err != nil {
		t.Fatal(err)
	}
	if notes := files["NOTES.txt"]; !strings.Contains(notes, " 1000000 pod(s)") {
		t.Error(notes)
	}
}

// Names that look like numbers in YAML stay strings.
func TestNumericNamesStayStrings(t *testing.T) {
	all := decoded(t, minimal+`
image: {repository: registry.example/usercast, tag: "1", pullSecrets: ["1000000"]}
ingress: {enabled: true, host: app.example, className: "12", path: /1, tlsSecret: "34"}
tls: {existingSecret: "56"}
serviceMonitor: {enabled: true, interval: "15"}
`)
	_, pod, _ := all.pod(t)
	if pod.ImagePullSecrets[0].Name != "1000000" {
		t.Errorf("%+v", pod.ImagePullSecrets)
	}
}

// The hub starts with the arguments and variables that the chart renders.
func TestHubStartsWithRenderedConfiguration(t *testing.T) {
	hub := filepath.Join(t.TempDir(), "usercast")
	build := exec.Command("go", "build", "-o", hub, "./cmd/usercast")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, more := range map[string]string{
		"minimal":     "",
		"numbers":     numbers,
		"stream feed": "feed: stream",
		"files": `
redis: {urls: ["rediss://redis:6379/0"], existingSecret: r, tls: {existingSecret: c}}
admin: {existingSecret: a}
`,
	} {
		t.Run(name, func(t *testing.T) {
			values, err := merge(minimal, more)
			if err != nil {
				t.Fatal(err)
			}
			all := decoded(t, values)
			_, pod, c := all.pod(t)
			startHub(t, hub, t.TempDir(), all, pod, c)
		})
	}
}

// startHub runs the command of a container with its files below dir, on free ports, until the hub is alive.
func startHub(t *testing.T, hub, dir string, all objects, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	at := make(map[string]string) // directories in the container, by volume
	for _, m := range c.VolumeMounts {
		at[m.Name] = m.MountPath
		if err := os.MkdirAll(dir+m.MountPath, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(file, content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range pod.Volumes {
		switch {
		case v.ConfigMap != nil:
			for key, content := range all["ConfigMap "+v.ConfigMap.Name].(*corev1.ConfigMap).Data {
				write(filepath.Join(dir, at[v.Name], key), content)
			}
		case v.Name == "redis-tls":
			write(filepath.Join(dir, at[v.Name], "ca.crt"), authority(t))
		case v.Secret != nil:
			for _, key := range []string{"password", "token"} {
				write(filepath.Join(dir, at[v.Name], key), "0123456789abcdef0123456789abcdef")
			}
		}
	}
	cmd := exec.Command(hub, c.Args...)
	for _, e := range c.Env {
		switch {
		case e.Name == "USERCAST_LISTEN" || e.Name == "USERCAST_ADMIN_LISTEN":
			e.Value = "127.0.0.1:0" // only the pod can use fixed ports
		case strings.HasPrefix(e.Value, "/etc/") || strings.HasPrefix(e.Value, "/run/"):
			e.Value = dir + e.Value
		}
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	lines, said, alive := bufio.NewScanner(log), "", false
	for lines.Scan() {
		said += lines.Text() + "\n"
		var line struct{ Msg, Admin string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "listening" {
			continue
		}
		answer, err := http.Get("http://" + line.Admin + "/livez")
		if err != nil {
			t.Error(err)
		} else {
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			alive = string(body) == "ok\n"
		}
		_ = cmd.Process.Signal(syscall.SIGINT)
	}
	if err := cmd.Wait(); err != nil || !alive {
		t.Errorf("alive: %v, ended with %v:\n%s", alive, err, said)
	}
}

// The rules match the labels that Prometheus sets with the ServiceMonitor.
func TestAlertsMatchLabelsOfTheServiceMonitor(t *testing.T) {
	all := decoded(t, minimal+"serviceMonitor: {enabled: true}\n")
	spec := (*all["ServiceMonitor live-usercast"].(*map[string]any))["spec"].(map[string]any)
	service := all["Service live-usercast-admin"].(*corev1.Service)
	// As documented for jobLabel: the value of that label of the service, or the name of the service.
	job := service.Name
	if label, ok := spec["jobLabel"].(string); ok && service.Labels[label] != "" {
		job = service.Labels[label]
	}
	rules, err := filepath.Abs("../prometheus/rules")
	if err != nil {
		t.Fatal(err)
	}
	labels := func(pod string) string {
		return fmt.Sprintf(`job="%s", instance="10.0.0.%s:8081", namespace="push", pod="live-usercast-%[2]s", service="%s", endpoint="admin", container="usercast"`, job, pod, service.Name)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	text := fmt.Sprintf(`
rule_files: [%s/*.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: 'up{%s}'
        values: '1x80'
      - series: 'up{%s}'
        values: '0x80'
    alert_rule_test:
      - {eval_time: 15m, alertname: UsercastAbsent, exp_alerts: []}
    promql_expr_test:
      - expr: count by (alertname, pod) (ALERTS{alertstate="firing"})
        eval_time: 15m
        exp_samples: [{labels: '{alertname="UsercastDown", pod="live-usercast-8"}', value: 1}]
  - interval: 15s
    input_series:
      - series: 'up{job="another"}'
        values: '1x80'
    promql_expr_test:
      - expr: count by (alertname) (ALERTS{alertstate="firing"})
        eval_time: 15m
        exp_samples: [{labels: '{alertname="UsercastAbsent"}', value: 1}]
`, rules, labels("7"), labels("8"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// Files such as the certificate of a private authority can be mounted.
func TestFilesCanBeMounted(t *testing.T) {
	values, err := merge(minimal, `
redis: {urls: ["rediss://redis:6379/0"], tls: {existingSecret: redis-ca, caKey: root.pem}}
extraEnv: [{name: SSL_CERT_DIR, value: /run/authorities}]
extraVolumes: [{name: authorities, configMap: {name: company-ca}}]
extraVolumeMounts: [{name: authorities, mountPath: /run/authorities, readOnly: true}]
`)
	if err != nil {
		t.Fatal(err)
	}
	_, pod, c := decoded(t, values).pod(t)
	if got := env(c); got["USERCAST_REDIS_TLS_CA"] != "/run/usercast/redis-tls/root.pem" || got["SSL_CERT_DIR"] != "/run/authorities" {
		t.Errorf("%v", got)
	}
	volumes := make(map[string]string)
	for _, v := range pod.Volumes {
		switch {
		case v.Secret != nil:
			volumes[v.Name] = "secret " + v.Secret.SecretName
		case v.ConfigMap != nil:
			volumes[v.Name] = "configMap " + v.ConfigMap.Name
		}
	}
	mounts := make(map[string]string)
	for _, m := range c.VolumeMounts {
		mounts[m.MountPath] = volumes[m.Name]
	}
	for path, want := range map[string]string{"/run/usercast/redis-tls": "secret redis-ca", "/run/authorities": "configMap company-ca", "/etc/usercast": "configMap live-usercast"} {
		if mounts[path] != want {
			t.Errorf("%s is %q, want %q", path, mounts[path], want)
		}
	}
}

// authority returns a certificate in PEM.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}
