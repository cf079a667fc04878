//go:build race

package cmd_test

// underRace tells that the programs take many times as long.
const underRace = true
