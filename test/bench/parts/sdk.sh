# shellcheck shell=bash disable=SC2154,SC2034
#
# The same creates by Clerk's JavaScript SDK, in waves of 50. Left out where
# there is no node, or npm cannot install the SDK.

# While the environment is still the caller's, who may have a registry there.
prepare_sdk() {
	sdk_missing=
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		sdk_missing="there is no node or no npm"
	elif ! mkdir "$work/sdk" || ! run_step 300 "$work/npm.log" npm install --prefix "$work/sdk" --no-audit --no-fund @clerk/backend; then
		sdk_missing="npm could not install @clerk/backend"
	else
		cp "$root/test/bench/sdk.mjs" "$work/sdk"
		chmod -R a+rX "$work/sdk"
	fi
}

bench_sdk() {
	local round

	if [[ -n $sdk_missing ]]; then
		say "sdk: not measured: $sdk_missing"
		return
	fi
	new_database sdk "$server_url"
	for ((round = 1; round <= rounds; round++)); do
		sample delivery-sdk floor "$("${as_postgres[@]}" node "$work/sdk/sdk.mjs" "$server_url" "$key" "$requests_fast" 50)"
		start_over
		warm_up
		deliver "$requests_fast"
		worker off
		sample delivery-sdk ours "$rate"
		progress "$round" "$rate a second"
	done
	drop_database sdk
}
