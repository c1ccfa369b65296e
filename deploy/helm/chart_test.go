package helm

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// minimal contains only the required values.
const minimal = `
image: {repository: registry.example/usercast}
redis: {urls: ["redis://redis:6379/0"]}
auth: {mode: forward, forward: {url: "http://app/usercast/session"}}
`

// render does the same as `helm template live usercast`: it merges values with the defaults of the chart, validates
// them against its schema, and executes the templates.
func render(values string) (map[string]string, error) {
	chart, err := loader.Load("usercast")
	if err != nil {
		return nil, err
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "live", Namespace: "push", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(chart, all)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]string)
	for name, text := range files {
		byName[filepath.Base(name)] = text
	}
	return byName, nil
}

// objects are the rendered objects by kind and name.
type objects map[string]any

// decoded renders the chart and decodes each document into its Kubernetes type, without unknown fields.
func decoded(t *testing.T, values string) objects {
	t.Helper()
	files, err := render(values)
	if err != nil {
		t.Fatal(err)
	}
	all := make(objects)
	for name, text := range files {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			var head struct {
				APIVersion, Kind string
				Metadata         struct{ Name string }
			}
			if strings.TrimSpace(document) == "" {
				continue
			}
			if err := yaml.Unmarshal([]byte(document), &head); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
			into, known := map[string]any{
				"apps/v1 Deployment":                      &appsv1.Deployment{},
				"v1 ConfigMap":                            &corev1.ConfigMap{},
				"v1 Service":                              &corev1.Service{},
				"v1 ServiceAccount":                       &corev1.ServiceAccount{},
				"networking.k8s.io/v1 Ingress":            &networkingv1.Ingress{},
				"networking.k8s.io/v1 NetworkPolicy":      &networkingv1.NetworkPolicy{},
				"policy/v1 PodDisruptionBudget":           &policyv1.PodDisruptionBudget{},
				"monitoring.coreos.com/v1 ServiceMonitor": &map[string]any{}, // its types would need a large dependency
			}[head.APIVersion+" "+head.Kind]
			if !known {
				t.Fatalf("%s: unexpected object %s %s", name, head.APIVersion, head.Kind)
			}
			if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
				t.Errorf("%s: %v\n%s", name, err, document)
			}
			key := head.Kind + " " + head.Metadata.Name
			if _, twice := all[key]; twice {
				t.Errorf("%s is defined twice", key)
			}
			all[key] = into
		}
	}
	return all
}

func (o objects) pod(t *testing.T) (*appsv1.Deployment, corev1.PodSpec, corev1.Container) {
	t.Helper()
	d, ok := o["Deployment live-usercast"].(*appsv1.Deployment)
	if !ok {
		t.Fatalf("no deployment in %v", slices.Sorted(maps.Keys(o)))
	}
	return d, d.Spec.Template.Spec, d.Spec.Template.Spec.Containers[0]
}

// env returns the environment variables with plain values.
func env(c corev1.Container) map[string]string {
	all := make(map[string]string)
	for _, e := range c.Env {
		all[e.Name] = e.Value
	}
	return all
}

func TestMinimalValuesRenderASecurePod(t *testing.T) {
	all := decoded(t, minimal)
	if got, want := slices.Sorted(maps.Keys(all)), []string{
		"ConfigMap live-usercast", "Deployment live-usercast", "PodDisruptionBudget live-usercast",
		"Service live-usercast", "Service live-usercast-admin", "ServiceAccount live-usercast",
	}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	d, pod, c := all.pod(t)
	if u := d.Spec.Strategy.RollingUpdate; *d.Spec.Replicas != 2 || u.MaxUnavailable.IntValue() != 0 || u.MaxSurge.IntValue() != 1 {
		t.Errorf("%d pods; a pod is stopped before its successor is ready: %+v", *d.Spec.Replicas, u)
	}
	if name, set := env(c)["USERCAST_NAME"]; set || pod.HostNetwork || pod.Hostname != "" {
		t.Errorf("the name of the hub, %q, is not that of the pod, which is the host name", name)
	}
	if p := c.ReadinessProbe; p.InitialDelaySeconds < 5 {
		t.Error("after a crash, pages return to the pod before it can know their ids")
	}
	if s := pod.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser != 65532 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%+v", s)
	}
	if s := c.SecurityContext; *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.Capabilities.Add != nil {
		t.Errorf("%+v", s)
	}
	if *pod.AutomountServiceAccountToken || *all["ServiceAccount live-usercast"].(*corev1.ServiceAccount).AutomountServiceAccountToken || pod.ServiceAccountName != "live-usercast" {
		t.Error("the pod has access to the Kubernetes API")
	}
	if r, l := c.ReadinessProbe.HTTPGet, c.LivenessProbe.HTTPGet; r.Path != "/readyz" || l.Path != "/livez" || r.Port.String() != "admin" || l.Port.String() != "admin" {
		t.Errorf("%+v, %+v", r, l)
	}
	if p := c.LivenessProbe; p.PeriodSeconds*p.FailureThreshold < 60 {
		t.Error("a pod is restarted after less than a minute, which closes all streams")
	}
	if c.Image != "registry.example/usercast:0.1.0" || !slices.Equal(c.Args, []string{"serve", "--redis=redis://redis:6379/0"}) {
		t.Errorf("%s %v", c.Image, c.Args)
	}
	// All selectors match the pods.
	labels := d.Spec.Template.Labels
	for _, name := range []string{"live-usercast", "live-usercast-admin"} {
		s := all["Service "+name].(*corev1.Service)
		for key, value := range s.Spec.Selector {
			if labels[key] != value {
				t.Errorf("service %s selects no pod", name)
			}
		}
		port := s.Spec.Ports[0].TargetPort.StrVal
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
			t.Errorf("service %s has the unknown target port %q", name, port)
		}
	}
	budget := all["PodDisruptionBudget live-usercast"].(*policyv1.PodDisruptionBudget)
	for _, selector := range []map[string]string{d.Spec.Selector.MatchLabels, budget.Spec.Selector.MatchLabels, pod.TopologySpreadConstraints[0].LabelSelector.MatchLabels} {
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("%v selects no pod", selector)
			}
		}
	}
	if got := env(c); got["USERCAST_LISTEN"] != ":8080" || got["USERCAST_ENV_FILE"] != "/etc/usercast/usercast.env" || got["USERCAST_MAX_CLIENTS"] != "5000" {
		t.Errorf("%v", got)
	}
}

// A pod that is killed while it drains disconnects the remaining streams.
func TestGracePeriodCoversTheDrain(t *testing.T) {
	for _, test := range []struct {
		values string
		grace  int64
	}{
		{"", 35},
		{"drainSeconds: 300\n", 320},
		{"drainDelaySeconds: 0\ndrainSeconds: 0\nwriteTimeoutSeconds: 1\n", 6},
		{"terminationGracePeriodSeconds: 90\n", 90},
		{"terminationGracePeriodSeconds: 35\n", 35},
	} {
		_, pod, c := decoded(t, minimal+test.values).pod(t)
		var needed time.Duration
		for _, name := range []string{"USERCAST_DRAIN_DELAY", "USERCAST_DRAIN", "USERCAST_WRITE_TIMEOUT"} {
			d, err := time.ParseDuration(env(c)[name])
			if err != nil {
				t.Fatal(err)
			}
			needed += d
		}
		grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
		if *pod.TerminationGracePeriodSeconds != test.grace || grace < needed+5*time.Second {
			t.Errorf("%q: the grace period is %v, but a drain can take %v", test.values, grace, needed)
		}
	}
}

func TestGoMemoryLimit(t *testing.T) {
	for _, limit := range []string{"1Gi", "1536Mi", "2G", "900000000", "512000Ki"} {
		_, _, c := decoded(t, minimal+"resources: {limits: {memory: "+limit+"}}\n").pod(t)
		q := resource.MustParse(limit)
		if got, want := env(c)["GOMEMLIMIT"], fmt.Sprint(q.Value()*9/10); got != want || c.Resources.Limits.Memory().Value() != q.Value() {
			t.Errorf("%s: %s, want %s", limit, got, want)
		}
	}
	_, _, c := decoded(t, minimal+"resources: {limits: {memory: null}}\n").pod(t)
	if got, ok := env(c)["GOMEMLIMIT"]; ok {
		t.Errorf("without a limit: %q", got)
	}
}

const everything = `
image: {repository: registry.example/usercast, tag: v1.2.3, pullSecrets: [registry]}
replicas: 3
feed: stream
redis: {urls: ["rediss://redis:6379/0"], existingSecret: redis-password, sentinelPasswordKey: sentinel, tls: {existingSecret: redis-ca, certKey: tls.crt, keyKey: tls.key}}
auth: {mode: jwt, jwt: {existingSecret: token-keys, secretKeys: [current, previous], issuer: "https://login.example"}}
allowOrigins: ["https://a.example", "https://b.example:8443"]
logLevel: warn
settings: {max-age: 50m, jwt-query: true}
extraEnv: [{name: USERCAST_CONTROL_CHANNEL, valueFrom: {secretKeyRef: {name: s, key: k}}}]
tls: {existingSecret: cert}
admin: {existingSecret: admin-token, apiTokenKey: api}
service: {type: LoadBalancer, port: 443, annotations: {a: b}}
ingress: {enabled: true, className: nginx, host: app.example, path: /stream, tlsSecret: app-cert, annotations: {c: d}}
networkPolicy: {enabled: true, adminFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
podAnnotations: {e: f}
podLabels: {g: h}
nodeSelector: {disk: ssd}
tolerations: [{key: x, operator: Exists}]
affinity: {nodeAffinity: {}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
`

func TestAllValues(t *testing.T) {
	all := decoded(t, everything)
	_, pod, c := all.pod(t)
	got := env(c)
	for name, want := range map[string]string{
		"USERCAST_JWT_SECRET_FILE":              "/run/usercast/jwt/current,/run/usercast/jwt/previous",
		"USERCAST_REDIS_PASSWORD_FILE":          "/run/usercast/redis/password",
		"USERCAST_REDIS_TLS_CA":                 "/run/usercast/redis-tls/ca.crt",
		"USERCAST_REDIS_TLS_CERT":               "/run/usercast/redis-tls/tls.crt",
		"USERCAST_REDIS_TLS_KEY":                "/run/usercast/redis-tls/tls.key",
		"USERCAST_REDIS_SENTINEL_PASSWORD_FILE": "/run/usercast/redis/sentinel",
		"USERCAST_ADMIN_TOKEN_FILE":             "/run/usercast/admin/token",
		"USERCAST_API_TOKEN_FILE":               "/run/usercast/admin/api",
		"USERCAST_TLS_CERT":                     "/run/usercast/tls/tls.crt",
		"USERCAST_TLS_KEY":                      "/run/usercast/tls/tls.key",
		"USERCAST_STREAM_KEY":                   "usercast:log",
		"USERCAST_PATH":                         "/stream",
		"USERCAST_MAX_AGE":                      "50m",
		"USERCAST_JWT_QUERY":                    "true",
		"USERCAST_JWT_ISSUER":                   "https://login.example",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	// Each directory in a path is mounted as a whole, because Kubernetes does not update a subPath.
	mounted := make(map[string]bool)
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" || !m.ReadOnly {
			t.Errorf("%+v", m)
		}
		if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("no volume %s", m.Name)
		}
		mounted[m.MountPath] = true
	}
	for name, value := range got {
		for file := range strings.SplitSeq(value, ",") {
			if strings.HasPrefix(file, "/run/") && !mounted[filepath.Dir(file)] {
				t.Errorf("%s: %s is not mounted", name, file)
			}
		}
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil && *v.Secret.DefaultMode != 0o440 {
			t.Errorf("%s has mode %o", v.Name, *v.Secret.DefaultMode)
		}
	}
	// Settings that can change without a restart are not in the pods.
	settings := all["ConfigMap live-usercast"].(*corev1.ConfigMap).Data["usercast.env"]
	if settings != "USERCAST_ALLOW_ORIGIN=https://a.example,https://b.example:8443\nUSERCAST_LOG_LEVEL=warn\n" {
		t.Errorf("%q", settings)
	}
	changed, _, _ := decoded(t, strings.Replace(everything, "logLevel: warn", "logLevel: debug", 1)).pod(t)
	if before, _, _ := all.pod(t); !reflect.DeepEqual(before, changed) {
		t.Error("another log level creates new pods")
	}
	// The ingress routes only the path of the stream, to the public port.
	rule := all["Ingress live-usercast"].(*networkingv1.Ingress).Spec.Rules[0]
	path := rule.HTTP.Paths[0]
	if path.Path != "/stream" || *path.PathType != networkingv1.PathTypeExact || path.Backend.Service.Name != "live-usercast" || path.Backend.Service.Port.Number != 443 {
		t.Errorf("%+v", path)
	}
	monitor := *all["ServiceMonitor live-usercast"].(*map[string]any)
	wanted := monitor["spec"].(map[string]any)["selector"].(map[string]any)["matchLabels"].(map[string]any)
	for name, finds := range map[string]bool{"live-usercast-admin": true, "live-usercast": false} {
		labels, ok := all["Service "+name].(*corev1.Service).Labels, true
		for key, value := range wanted {
			ok = ok && labels[key] == value
		}
		if ok != finds {
			t.Errorf("Prometheus selects %s: %v", name, ok)
		}
	}
}

func TestAuthModes(t *testing.T) {
	for mode, want := range map[string]string{
		`{mode: jwt, jwt: {existingSecret: s, publicKey: keys.pem}}`:   "USERCAST_JWT_KEY_FILE=/run/usercast/jwt/keys.pem",
		`{mode: jwt, jwt: {jwksUrl: "https://login.example/jwks"}}`:    "USERCAST_JWT_JWKS_URL=https://login.example/jwks",
		`{mode: header, trustedProxies: ["10.0.0.0/8", "10.1.0.0/8"]}`: "USERCAST_TRUSTED_PROXY=10.0.0.0/8,10.1.0.0/8",
		`{mode: insecure, insecureAnywhere: true}`:                     "USERCAST_AUTH_INSECURE_ANYWHERE=true",
	} {
		values, err := merge(minimal, "auth: "+mode)
		if err != nil {
			t.Fatal(err)
		}
		_, _, c := decoded(t, values).pod(t)
		if name, value, _ := strings.Cut(want, "="); env(c)[name] != value {
			t.Errorf("%s: %s is %q, want %q", mode, name, env(c)[name], value)
		}
	}
}

// Contradictory and missing values are rejected with a message that says what to do.
func TestInvalidValuesAreRejected(t *testing.T) {
	for values, says := range map[string]string{
		"image: {repository: ''}":                                 "image.repository is empty: set it to the image",
		"redis: {urls: []}":                                       "redis.urls is empty",
		`redis: {urls: ["redis://:pw@redis:6379/0"]}`:             "redis.urls contains a password",
		`redis: {urls: ["http://redis"]}`:                         "/redis/urls/0",
		"feed: stream\nredis: {urls: ['redis://a', 'redis://b']}": "a stream is on one server",
		"auth: {mode: ''}":                                        "auth.mode is empty",
		"auth: {mode: insecure}":                                  "auth.mode insecure lets any client",
		"auth: {mode: jwt}":                                       "auth.jwt needs exactly one of",
		"auth: {mode: jwt, jwt: {secretKeys: [a]}}":               "auth.jwt.existingSecret is empty",
		"admin: {apiTokenKey: api}":                               "admin.existingSecret is empty",
		"auth: {mode: forward, forward: {url: ''}}":               "auth.forward.url is empty",
		"auth: {mode: header}":                                    "auth.trustedProxies is empty",
		"terminationGracePeriodSeconds: 34":                       "terminationGracePeriodSeconds is 34, but a pod needs at least 35: drainDelaySeconds (5) + drainSeconds (15) + writeTimeoutSeconds (10) + 5",
		"terminationGracePeriodSeconds: 40\ndrainSeconds: 60":     "a pod needs at least 80",
		"resources: {limits: {memory: 1.5Gi}}":                    `"1.5Gi": set a whole number`,
		"settings: {drain: 1m}":                                   "settings has drain, which the chart already sets",
		"settings: {allow-origin: x}":                             "settings has allow-origin",
		"extraEnv: [{name: USERCAST_DRAIN, value: 1m}]":           "extraEnv has USERCAST_DRAIN, which the chart already sets",
		"extraEnv: [{name: A, value: 1}]":                         "/extraEnv/0/value",
		"extraVolumes: [{name: settings}]":                        "extraVolumes has settings, which is a volume of the chart",
		"extraVolumeMounts: [{mountPath: /a}]":                    "/extraVolumeMounts/0",
		"extraEnv: [{name: USERCAST_REDIS_TLS_CA, value: /a}]\nredis: {tls: {existingSecret: a}}": "extraEnv has USERCAST_REDIS_TLS_CA, which the chart already sets",
		"ingress: {enabled: true}":            "ingress.host is empty",
		"drainSecond: 5":                      "drainSecond",
		"image: {repo: x}":                    "repo",
		"replicas: many":                      "replicas",
		"logLevel: loud":                      "logLevel",
		"allowOrigins: ['https://*.example']": "/allowOrigins/0",
	} {
		merged, err := merge(minimal, values)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := render(merged); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v\nwant %q", values, err, says)
		}
	}
}

// merge overrides values, as a second --values does.
func merge(under, over string) (string, error) {
	lower, err1 := chartutil.ReadValues([]byte(under))
	upper, err2 := chartutil.ReadValues([]byte(over))
	merged, err3 := yaml.Marshal(chartutil.CoalesceTables(upper, lower))
	return string(merged), errors.Join(err1, err2, err3)
}

func TestNotes(t *testing.T) {
	files, err := render(minimal)
	if err != nil {
		t.Fatal(err)
	}
	notes := files["NOTES.txt"]
	for _, says := range []string{"2 pod(s)", "takes up to 35 seconds", "set ingress.enabled"} {
		if !strings.Contains(notes, says) {
			t.Errorf("%q is missing in\n%s", says, notes)
		}
	}
	if strings.Contains(notes, "WARNING") {
		t.Error(notes)
	}
	for values, says := range map[string]string{
		"replicas: 1\n": "a crash of the pod is a gap",
		`redis: {urls: ["redis://a", "redis://b"]}`: "message ids are valid on one pod only",
	} {
		merged, err := merge(minimal, values)
		if err != nil {
			t.Fatal(err)
		}
		files, err := render(merged)
		if err != nil {
			t.Fatal(err)
		}
		if notes := files["NOTES.txt"]; !strings.Contains(notes, says) {
			t.Errorf("%s: %q is missing in\n%s", values, says, notes)
		}
	}
	files, err = render(everything)
	if err != nil {
		t.Fatal(err)
	}
	if notes := files["NOTES.txt"]; strings.Contains(notes, "WARNING") || !strings.Contains(notes, "https://app.example/stream") {
		t.Error(notes)
	}
}
