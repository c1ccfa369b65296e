package flags

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"usercast/internal/envfile"
)

// EnvPrefix is the prefix of all environment variables of this program.
const EnvPrefix = "USERCAST_"

// JWTSecretVariable is the environment variable with the secret of --auth jwt, as an alternative to a file. It is not a
// flag, because the command line is visible to every user of the host.
const JWTSecretVariable = EnvPrefix + "JWT_SECRET"

// An EnvFile holds the variables in the file of --env-file. The environment takes precedence over them. Each parsed
// command line needs a new EnvFile, so that it can be compared with the previous one.
type EnvFile struct {
	values map[string]string // all variables in the file
	used   map[string]string // variables of flags that are not set elsewhere
	err    error             // from reading the file; values is then empty
}

// Err returns the error from reading the file. A nil EnvFile is empty.
func (f *EnvFile) Err() error {
	if f == nil {
		return nil
	}
	return f.err
}

// Validate implements kong.Resolver.
func (f *EnvFile) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. It is called for each flag that is not on the command line.
func (f *EnvFile) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if f.used == nil {
		f.load(ctx, parent.Flags)
	}
	for _, name := range flag.Envs {
		value, ok := f.values[name]
		if _, set := os.LookupEnv(name); ok && !set {
			f.used[name] = value
			return value, nil
		}
	}
	return nil, nil
}

// load reads the file of --env-file, if the command has that flag and it is set.
func (f *EnvFile) load(ctx *kong.Context, flags []*kong.Flag) {
	i := slices.IndexFunc(flags, func(flag *kong.Flag) bool { return flag.Name == "env-file" })
	if i < 0 {
		return
	}
	f.used = make(map[string]string)
	name, _ := ctx.FlagValue(flags[i]).(string)
	if name == "" {
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		f.err = err
		return
	}
	values, err := envfile.Parse(text, EnvPrefix)
	if err != nil {
		f.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	known := []string{JWTSecretVariable}
	// The file is valid if serve accepts it, also for other commands: check must reject what serve rejects.
	for _, command := range ctx.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			if flag.Name != "env-file" { // the file cannot name another file
				known = append(known, flag.Envs...)
			}
		}
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		variable, _, _ := strings.Cut(line, "=")
		variable = strings.TrimSpace(variable)
		if _, isSet := values[variable]; isSet && !slices.Contains(known, variable) {
			f.err = fmt.Errorf("%s: line %d: unknown setting %s", name, n, variable)
			return
		}
	}
	f.values = values
}

// Variable returns the value of a variable that is not a flag. A nil EnvFile is empty.
func (f *EnvFile) Variable(name string) string {
	if value, ok := os.LookupEnv(name); ok || f == nil {
		return value
	}
	return f.values[name]
}

// Changed returns the used variables whose value differs from the previous one.
func (f *EnvFile) Changed(before *EnvFile) (names []string) {
	all := maps.Clone(f.used)
	maps.Copy(all, before.used)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		now, is := f.used[name]
		then, was := before.used[name]
		if is != was || now != then {
			names = append(names, name)
		}
	}
	return names
}

// Variable returns the environment variable of a flag.
func Variable(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
