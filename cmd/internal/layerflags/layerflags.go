// Package layerflags defines the flags by which every program that reads layers
// sets what it accepts: the same names, texts and defaults everywhere.
package layerflags

import (
	"errors"
	"strconv"

	"github.com/spf13/pflag"

	"deploytools/layers"
)

// Limit is a flag that sets one limit.
type Limit struct {
	Flag  string // its name
	Field string // of layers.Limits, as errors name it
	Usage string
	of    func(*layers.Limits) value
}

// Limits lists the flags for limits. docs/layer-format.md has the same table.
var Limits = []Limit{
	{"max-unpacked", "Unpacked", "greatest size of all files of a layer, in `bytes`, holes counted", func(l *layers.Limits) value { return number{&l.Unpacked} }},
	{"max-ratio", "Ratio", "how many `times` its size a layer may unpack to, after the first 64 MiB", func(l *layers.Limits) value { return number{&l.Ratio} }},
	{"max-entries", "Entries", "greatest `number` of entries of a layer, directories without one counted", func(l *layers.Limits) value { return count{&l.Entries} }},
	{"max-names", "Names", "greatest size of all paths and link targets of a layer, in `bytes`", func(l *layers.Limits) value { return number{&l.Names} }},
	{"max-links", "Links", "greatest `number` of hard links to one file", func(l *layers.Limits) value { return count{&l.Links} }},
	{"max-headers", "Headers", "greatest `number` of extension headers in a row", func(l *layers.Limits) value { return count{&l.Headers} }},
	{"max-header-bytes", "HeaderBytes", "greatest size of an entry's extension headers, in `bytes`, at most 1 MiB", func(l *layers.Limits) value { return number{&l.HeaderBytes} }},
}

// Define defines the flags for o, whose limits become the defaults.
func Define(fs *pflag.FlagSet, o *layers.Options) {
	fs.BoolVar(&o.Privileged, "allow-privileged", false, "accept setuid and setgid files and file capabilities")
	o.Limits = layers.DefaultLimits()
	for _, l := range Limits {
		fs.Var(l.of(&o.Limits), l.Flag, l.Usage)
	}
}

type value = pflag.Value

var errNotPositive = errors.New("should be a number above 0")

// number is a limit of 64 bits, count one of an int.
type (
	number struct{ v *int64 }
	count  struct{ v *int }
)

func (n number) String() string {
	if n.v == nil { // pflag asks the zero value
		return "0"
	}
	return strconv.FormatInt(*n.v, 10)
}

func (n number) Type() string { return "int" }

func (n number) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 1 {
		return errNotPositive
	}
	*n.v = v
	return nil
}

func (c count) String() string {
	if c.v == nil {
		return "0"
	}
	return strconv.Itoa(*c.v)
}

func (c count) Type() string { return "int" }

func (c count) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return errNotPositive
	}
	*c.v = v
	return nil
}
