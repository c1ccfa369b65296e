package deploy

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const root = ".." // of the module

// service contains the fields of a service in docker-compose.yml that the tests check.
type service struct {
	Image, Build string
	Restart      string
	ReadOnly     bool     `yaml:"read_only"`
	CapDrop      []string `yaml:"cap_drop"`
	SecurityOpt  []string `yaml:"security_opt"`
	Ports        []string
	Volumes      []string
	Environment  map[string]string
	Healthcheck  struct{ Test []string }
	DependsOn    yaml.Node `yaml:"depends_on"`
}

// once reports whether a service runs once and exits: others wait for its completion.
func (c compose) once(t *testing.T, name string) bool {
	t.Helper()
	for _, s := range c.Services {
		if s.DependsOn.Kind == yaml.MappingNode && s.waits(t)[name].Condition == "service_completed_successfully" {
			return true
		}
	}
	return false
}

// waits returns the services that a service waits for, with their conditions.
func (s service) waits(t *testing.T) map[string]struct{ Condition string } {
	t.Helper()
	waits := map[string]struct{ Condition string }{}
	if err := s.DependsOn.Decode(&waits); err != nil {
		t.Fatal(err)
	}
	return waits
}

type compose struct {
	Services map[string]service
	Volumes  map[string]any
}

func loadCompose(t *testing.T) (c compose) {
	t.Helper()
	decode(t, "docker-compose.yml", &c)
	if len(c.Services) == 0 {
		t.Fatal("docker-compose.yml has no services")
	}
	return c
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestComposeServicesAreHardenedAndHaveHealthChecks(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?$`)
	ports := map[string]string{}
	c := loadCompose(t)
	for name, s := range c.Services {
		once := c.once(t, name)
		restart := "unless-stopped"
		if once {
			restart = "no"
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Restart != restart {
			t.Errorf("%s is not hardened like the other services", name)
		}
		healthy := once || len(s.Healthcheck.Test) > 1 && s.Healthcheck.Test[0] == "CMD"
		if s.Build != "" {
			dockerfile, err := os.ReadFile(filepath.Join(root, s.Build, "Dockerfile"))
			if err != nil {
				t.Fatal(err)
			}
			healthy = regexp.MustCompile(`(?m)^HEALTHCHECK `).Match(dockerfile)
		} else if !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %s is not pinned to a version", name, s.Image)
		}
		if !healthy {
			t.Errorf("%s has no health check, so up --wait would not wait for it", name)
		}
		for _, p := range s.Ports {
			parts := strings.Split(p, ":")
			if len(parts) != 3 || parts[0] != "127.0.0.1" {
				t.Errorf("%s publishes a port to other hosts: %s", name, p)
				continue
			}
			if other := ports[parts[1]]; other != "" {
				t.Errorf("%s and %s both publish port %s", name, other, parts[1])
			}
			ports[parts[1]] = name
		}
	}
}

func TestComposeMountsExist(t *testing.T) {
	c := loadCompose(t)
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			parts := strings.Split(v, ":")
			if !strings.HasPrefix(parts[0], ".") {
				if _, declared := c.Volumes[parts[0]]; !declared {
					t.Errorf("%s: the volume %s is not declared", name, parts[0])
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(root, parts[0])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if len(parts) != 3 || parts[2] != "ro" {
				t.Errorf("%s can write to %s", name, parts[0])
			}
		}
	}
}

// The host names and paths in the mounted files are right inside the containers.
func TestComposeServicesReachEachOther(t *testing.T) {
	c := loadCompose(t)
	for name, s := range c.Services {
		var others []string
		if s.DependsOn.Kind == yaml.MappingNode {
			for other, wait := range s.waits(t) {
				others = append(others, other)
				if !c.once(t, other) && wait.Condition != "service_healthy" {
					t.Errorf("%s waits until %s is %s", name, other, wait.Condition)
				}
			}
		} else if err := s.DependsOn.Decode(&others); s.DependsOn.Kind != 0 && err != nil {
			t.Fatal(err)
		}
		for _, other := range others {
			c.want(t, name+" waits for", other)
		}
	}

	var scraping struct {
		Rules  []string `yaml:"rule_files"`
		Scrape []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	decode(t, "deploy/prometheus/prometheus.yml", &scraping)
	for _, target := range scraping.Scrape[0].Static[0].Targets {
		host, _, _ := strings.Cut(target, ":")
		c.want(t, "Prometheus scrapes", host)
	}
	config := c.mountedAt(t, "prometheus", "./deploy/prometheus/prometheus.yml")
	rules := c.mountedAt(t, "prometheus", "./deploy/prometheus/rules")
	if len(scraping.Rules) != 1 || path.Join(path.Dir(config), path.Dir(scraping.Rules[0])) != rules {
		t.Errorf("the rules are at %s, but %s reads %v", rules, config, scraping.Rules)
	}

	var sources struct {
		Datasources []struct{ URL, Type, UID string }
	}
	decode(t, "deploy/grafana/provisioning/datasources/prometheus.yml", &sources)
	u, err := url.Parse(sources.Datasources[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	c.want(t, "Grafana queries", u.Hostname())
	var dashboards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	decode(t, "deploy/grafana/provisioning/dashboards/usercast.yml", &dashboards)
	folder := c.mountedAt(t, "grafana", "./deploy/grafana/dashboards")
	if at := dashboards.Providers[0].Options.Path; at != folder {
		t.Errorf("the dashboards are at %s, but Grafana reads %s", folder, at)
	}
	if at := c.mountedAt(t, "grafana", "./deploy/grafana/provisioning"); at != "/etc/grafana/provisioning" {
		t.Errorf("Grafana does not read %s", at)
	}
	home := c.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if name, inside := strings.CutPrefix(home, folder+"/"); !inside {
		t.Errorf("the home dashboard %s is not in %s", home, folder)
	} else if _, err := os.Stat(filepath.Join(root, "deploy/grafana/dashboards", name)); err != nil {
		t.Error(err)
	}
}

func (c compose) want(t *testing.T, what, service string) {
	t.Helper()
	if _, there := c.Services[service]; !there {
		t.Errorf("%s %s, which is not a service", what, service)
	}
}

// mountedAt returns the path of a mounted file or directory in the container of a service.
func (c compose) mountedAt(t *testing.T, service, source string) string {
	t.Helper()
	for _, v := range c.Services[service].Volumes {
		if parts := strings.Split(v, ":"); parts[0] == source {
			return parts[1]
		}
	}
	t.Fatalf("%s does not mount %s", service, source)
	return ""
}
