#!/bin/bash
# recipes.sh all|sample|NAME[,NAME]... [FLAG...] tries recipes with their real
# servers, which it installs, and writes docs/recipes; where CI is set it only
# looks. A sample is nginx and another one for each commit. The flags go to go test.
set -eu
cd "$(dirname "$0")/.."

# Each script there is a recipe, but shared.sh, which is for no server. `make
# systemd` tries those of services. nginx.sh is tried in two layouts.
all=(nginx-published)
for script in scripts/hooks/*.sh; do
	name=$(basename "$script" .sh)
	case $name in
	shared | service | socket) ;;
	*) all+=("$name") ;;
	esac
done

names=$1
shift
case $names in
all) names=$(IFS=, && echo "${all[*]}") ;;
sample)
	others=()
	for name in "${all[@]}"; do
		[[ $name == nginx ]] || others+=("$name")
	done
	commit=$(git rev-parse HEAD 2>/dev/null || echo 0)
	names=nginx,${others[16#${commit:0:7} % ${#others[@]}]}
	;;
esac

scripts/deps.sh --recipes "$names"
echo "recipes: $names"
[[ -n ${CI-} ]] || set -- "$@" -update
DEPLOY_TEST_RECIPES=$names go test -count=1 -timeout 30m -run '^Test(Docs)?Recipes' ./cmd "$@"
