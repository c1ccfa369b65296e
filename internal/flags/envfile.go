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

// EnvPrefix begins the name of each environment variable of this program.
const EnvPrefix = "USERCAST_"

// JWTSecretVariable may hold the secret of --auth jwt, instead of a file. It is not a flag: the
// command line can be read by all users of the machine.
const JWTSecretVariable = EnvPrefix + "JWT_SECRET"

// An EnvFile is the file of --env-file: variables that the environment does not have. A new one is
// used for each command line that is parsed, so that it can be compared with the previous one.
type EnvFile struct {
	values map[string]string // by variable
	used   map[string]string // those of values that belong to a flag that is not set elsewhere
	err    error             // of reading the file; then it has no values
}

// Err is the error of reading the file. A nil EnvFile is an empty one.
func (f *EnvFile) Err() error {
	if f == nil {
		return nil
	}
	return f.err
}

// Validate is for kong.Resolver.
func (f *EnvFile) Validate(*kong.Application) error { return nil }

// Resolve is for kong.Resolver, which calls it for each flag that is not on the command line.
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

// load reads the file that one of the flags names, if the command has that flag.
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
		f.err = fmt.Errorf("%s, %w", name, err)
		return
	}
	known := []string{JWTSecretVariable}
	// It is the hub's file, also when another command reads it: check must reject what serve rejects.
	for _, command := range ctx.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			if flag.Name != "env-file" { // no file names another
				known = append(known, flag.Envs...)
			}
		}
	}
	for variable := range values {
		if !slices.Contains(known, variable) {
			f.err = fmt.Errorf("%s: there is no setting %s", name, variable)
			return
		}
	}
	f.values = values
}

// Variable is the value of a variable that is not a flag. A nil EnvFile is an empty one.
func (f *EnvFile) Variable(name string) string {
	if value, ok := os.LookupEnv(name); ok || f == nil {
		return value
	}
	return f.values[name]
}

// Changed are the variables that are used and have another value than before.
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

// Variable is the environment variable of a flag.
func Variable(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
