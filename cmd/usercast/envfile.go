package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"usercast/internal/envfile"
)

// envPrefix begins the name of each variable that is ours.
const envPrefix = "USERCAST_"

// An envFile is the file of --env-file: variables that the environment does not have. It is
// read anew for each command line that is parsed, so that it can be compared with what it was.
type envFile struct {
	values map[string]string // by variable
	counts map[string]string // those of values that are a flag's, which is given nowhere else
	err    error             // of reading the file; then it has no values
}

// Validate is for kong.Resolver.
func (f *envFile) Validate(*kong.Application) error { return nil }

// Resolve is for kong.Resolver: it answers for each flag that is not on the command line.
func (f *envFile) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if f.counts == nil {
		f.load(ctx, parent.Flags)
	}
	for _, name := range flag.Envs {
		value, ok := f.values[name]
		if _, set := os.LookupEnv(name); ok && !set {
			f.counts[name] = value
			return value, nil
		}
	}
	return nil, nil
}

// load reads the file that one of the flags names, if the command has that flag.
func (f *envFile) load(ctx *kong.Context, flags []*kong.Flag) {
	i := slices.IndexFunc(flags, func(flag *kong.Flag) bool { return flag.Name == "env-file" })
	if i < 0 {
		return
	}
	f.counts = make(map[string]string)
	name, _ := ctx.FlagValue(flags[i]).(string)
	if name == "" {
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		f.err = err
		return
	}
	values, err := envfile.Parse(text, envPrefix)
	if err != nil {
		f.err = fmt.Errorf("%s, %w", name, err)
		return
	}
	known := []string{jwtSecretVariable}
	// It is the hub's file, whoever reads it: what serve would refuse, check must not take.
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

// variable is the value of a variable that is no flag.
func (f *envFile) variable(name string) string {
	if value, ok := os.LookupEnv(name); ok || f == nil {
		return value
	}
	return f.values[name]
}

// changed are the variables that count and have another value than before.
func (f *envFile) changed(before *envFile) (names []string) {
	all := maps.Clone(f.counts)
	maps.Copy(all, before.counts)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		now, is := f.counts[name]
		then, was := before.counts[name]
		if is != was || now != then {
			names = append(names, name)
		}
	}
	return names
}

// variableOf is the variable of a flag.
func variableOf(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
