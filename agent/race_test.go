//go:build race

package agent

// underRace tells that everything takes many times as long.
const underRace = true
