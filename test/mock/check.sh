#!/bin/bash
#
# Self-check of the mock Clerk server: starts one on a free port, exercises
# it with curl, prints a line for each check, and fails if one of them did.
#
#	check.sh [path of mock_clerk]
#
# RUNNER goes before the command: RUNNER="valgrind --error-exitcode=99 -q".

set -u
cd "$(dirname "$0")" || exit 1

mock=${1:-../mock_clerk}
tmp=$(mktemp -d)
pids=()
count=0
failed=0
key='sk_test_mock'

finish()
{
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null
	done
	wait
	rm -rf "$tmp"
}
trap finish EXIT

say()
{
	count=$((count + 1))
	if [ "$1" = ok ]; then
		echo "ok $count - $2"
	else
		failed=$((failed + 1))
		echo "not ok $count - $2"
		[ -n "${3-}" ] && echo "#   got: ${3:0:600}"
	fi
}

# is NAME GOT WANTED
is()
{
	if [ "$2" = "$3" ]; then say ok "$1"; else say no "$1" "$2"; fi
}

# like NAME GOT SUBSTRING...
like()
{
	local name=$1 got=$2 part
	shift 2
	for part; do
		case $got in
			*"$part"*) ;;
			*) say no "$name (wanted: $part)" "$got"; return ;;
		esac
	done
	say ok "$name"
}

# unlike NAME GOT SUBSTRING
unlike()
{
	case $2 in
		*"$3"*) say no "$1 (unwanted: $3)" "$2" ;;
		*) say ok "$1" ;;
	esac
}

# below NAME A B
below()
{
	if [ "$2" -lt "$3" ]; then say ok "$1"; else say no "$1" "$2, not below $3"; fi
}

# eventually NAME CONTROL-PATH SUBSTRING: within ten seconds
eventually()
{
	local got
	for _ in $(seq 100); do
		got=$(mock_get "$2")
		case $got in *"$3"*) break ;; esac
		sleep 0.1
	done
	like "$1" "$got" "$3"
}

# start OPTION...: sets base and pid
start()
{
	rm -f "$tmp/port"
	${RUNNER-} "$mock" --port-file "$tmp/port" --parent $$ "$@" >"$tmp/out" 2>>"$tmp/err" &
	pid=$!
	pids+=("$pid")
	for _ in $(seq 100); do
		[ -s "$tmp/port" ] && break
		sleep 0.1
	done
	base=http://127.0.0.1:$(cat "$tmp/port")
}

stop()
{
	kill "$pid"
	wait "$pid"
}

# said NAME SUBSTRING: on stderr, by the one that ended
said()
{
	like "$1" "$(<"$tmp/err")" "$2"
	: >"$tmp/err"
}

# api METHOD PATH [BODY [CURL OPTION...]]: "STATUS BODY"
api()
{
	local method=$1 path=$2 body=${3-}
	shift 2
	[ $# -gt 0 ] && shift
	if [ -n "$body" ]; then
		set -- -H 'Content-Type: application/json' --data-binary "$body" "$@"
	fi
	curl -sk -m 20 -X "$method" -H "Authorization: Bearer $key" -o "$tmp/body" -w '%{http_code} ' "$@" "$base$path"
	cat "$tmp/body" 2>/dev/null
	rm -f "$tmp/body"
}


mock_post()
{
	curl -sk -m 20 --data-binary "${2-}" "$base/_mock/$1"
}

mock_get()
{
	curl -sk -m 20 "$base/_mock/$1"
}

reset()
{
	mock_post reset "${1-}" >/dev/null
}

# broken METHOD PATH [BODY]: the exit code of one curl call
broken()
{
	curl -sk -m "${WAIT:-5}" -X "$1" -H "Authorization: Bearer $key" ${3+-H 'Content-Type: application/json' --data-binary "$3"} \
		-o /dev/null "$base$2"
	echo $?
}

ec=/v1/enterprise_connections
acme='{"name":"Acmé ☃","provider":"saml_okta","domains":["Acme.Example"],"organization_id":"org_1"}'

check_basics()
{
	like 'prints its port' "$(cat "$tmp/out")" 'port '
	like 'no key is 401' "$(curl -s -w ' %{http_code}' "$base$ec")" authorization_header_format_invalid ' 401'
	like 'a wrong key is 401' "$(curl -s -w ' %{http_code}' -H 'Authorization: Bearer sk_x' "$base$ec")" clerk_key_invalid ' 401'
	like 'a wrong version is 400' "$(api GET $ec '' -H 'Clerk-API-Version: 2020-01-01')" '400 ' api_version_invalid
	like 'the right version' "$(api GET $ec '' -H 'Clerk-API-Version: 2026-05-12')" '200 {"data":[],"total_count":0}'
	like 'unknown path' "$(api GET /v1/users)" '404 ' resource_not_found
	like 'wrong method' "$(api PUT $ec '{}' -i)" '405 ' 'allow: GET, POST'
	like 'unknown id' "$(api GET $ec/nope)" '404 ' resource_not_found
	like 'content type of an answer' "$(api GET $ec '' -i)" 'content-type: application/json; charset=utf-8'
}

check_life()
{
	reset '{"clock_ms":1780000000000}'
	like 'create' "$(api POST $ec "$acme")" '201 ' '"id":"entconn_000001"' '"name":"Acmé ☃"' '"domains":["acme.example"]' \
		'"organization_id":"org_1"' '"id":"samlc_000001"' '"oauth_config":null' '"created_at":1780000000000,"updated_at":1780000000000'
	like 'get' "$(api GET $ec/entconn_000001)" '200 ' 'Acmé ☃'
	like 'a path prefix is taken' "$(api GET /proxy/v1/x$ec/entconn_000001)" '200 ' 'Acmé ☃'
	like 'update' "$(api PATCH $ec/entconn_000001 '{"name":"Bee","domains":[],"sync_user_attributes":false}')" '200 ' \
		'"name":"Bee"' '"domains":["acme.example"]' '"sync_user_attributes":false' '"updated_at":1780000000001'
	like 'organizations are never unlinked' "$(api PATCH $ec/entconn_000001 '{"organization_id":null}')" '200 ' '"organization_id":"org_1"'
	like 'an OIDC connection' "$(api POST $ec '{"name":"G","provider":"oidc_custom","domains":["g.example"],
		"oidc":{"client_id":"c","client_secret":"s3cret","requires_pkce":false}}')" '201 ' '"saml_connection":null' \
		'"oauth_config":{"id":"eaoc_000001"' '"requires_pkce":false'
	unlike 'no secret comes back' "$(api GET $ec/entconn_000002)" s3cret
	unlike 'organization_id is left out' "$(api GET $ec/entconn_000002)" organization_id
	like 'list, newest first' "$(api GET $ec)" '{"data":[{"object":"enterprise_connection","id":"entconn_000002"' '"total_count":2'
	like 'filter by organization' "$(api GET "$ec?organization_id=org_1")" 'entconn_000001' '"total_count":1'
	like 'filter by active' "$(api GET "$ec?active=true")" '200 {"data":[],"total_count":0}'
	like 'limit out of range' "$(api GET "$ec?limit=501&offset=-1")" '422 ' '"param_name":"limit"' '"param_name":"offset"'
	like 'delete with a body' "$(api DELETE $ec/entconn_000001 '{}')" '415 ' unsupported_content_type
	like 'delete' "$(api DELETE $ec/entconn_000001)" '200 {"object":"enterprise_connection","id":"entconn_000001","deleted":true}'
	like 'gone' "$(api DELETE $ec/entconn_000001)" '404 '
	like 'its domain is free again' "$(api POST $ec "$acme")" '201 ' entconn_000003
	like 'test run' "$(api POST $ec/entconn_000003/test_runs)" '200 {"url":"https://'
	like 'test runs' "$(api GET "$ec/entconn_000003/test_runs?status=pending&status=failed")" '"connection_type":"saml"' '"total_count":1'
	like 'test runs by status' "$(api GET "$ec/entconn_000003/test_runs?status=failed")" '{"data":[],"total_count":0}'
	like 'wrong status' "$(api GET "$ec/entconn_000003/test_runs?status=x")" '422 '
}

check_validation()
{
	local got
	reset
	api POST $ec "$acme" >/dev/null
	like 'no JSON' "$(api POST $ec '{"name":')" '400 ' request_body_invalid
	like 'no object' "$(api POST $ec '[]')" '400 ' request_body_invalid
	like 'no body' "$(api POST $ec)" '400 ' request_body_invalid
	like 'wrong content type' "$(api POST $ec '' -H 'Content-Type: text/plain' --data-binary '{}')" '415 '
	like 'content type with a charset' "$(api POST $ec '' -H 'Content-Type: application/json; charset=utf-8' --data-binary '{}')" '422 '
	head -c 17000000 /dev/zero | tr '\0' a >"$tmp/large"
	like 'too large' "$(api POST $ec "@$tmp/large")" '413 ' request_body_too_large
	like 'all that is missing' "$(api POST $ec '{}')" '422 ' 'name must be included' 'provider must be included' 'domains must be included'
	got=$(api POST $ec '{"name":null,"provider":"saml_x","domains":["acme.example","Q.example","q.example","nodot","1.2.3.4"],
		"surprise":1,"sync_user_attributes":true,"saml":{"name":"x","force_authn":"yes","login_hint":{"mode":"custom_attribute"}},
		"custom_attributes":[{"name":"n","key":"_k","scim_path":"a","directory_path":"b"},{"x":1}]}')
	like 'every fault at once' "$got" '422 ' form_param_nil form_param_value_invalid \
		'organization_domain_exists_for_enterprise_connection","meta":{"param_name":"domains"}' form_param_duplicate \
		'\"nodot\" is not' '\"1.2.3.4\" is not' '"param_name":"surprise"' '"param_name":"sync_user_attributes"' '"param_name":"saml.name"' \
		'"param_name":"saml.force_authn"' '"code":"form_conditional_param_missing","meta":{"param_name":"saml.login_hint.source"}' \
		'"param_name":"custom_attributes.0.key"' '"param_name":"custom_attributes.0.directory_path"' \
		'"param_name":"custom_attributes.1.x"' 'custom_attributes.1.key must be included'
	like 'PKCE' "$(api POST $ec '{"name":"n","provider":"oidc_custom","domains":["p.example"],"oidc":{"client_id":"c","requires_pkce":false}}')" \
		'422 ' form_public_client_requires_pkce
	like 'activation without metadata' "$(api PATCH $ec/entconn_000001 '{"active":true}')" '422 ' saml_connection_cant_be_activated
	like 'activation with metadata' "$(api PATCH $ec/entconn_000001 '{"active":true,"saml":{"idp_metadata":"<md/>"}}')" '200 ' '"active":true'
	like 'provider is immutable' "$(api PATCH $ec/entconn_000001 '{"provider":"saml_okta"}')" '422 ' form_param_unknown
	like 'its own domain is no duplicate' "$(api PATCH $ec/entconn_000001 '{"domains":["acme.example","b.example"]}')" '200 ' '["acme.example","b.example"]'
	mock_post settings '{"profile":"lenient"}' >/dev/null
	like 'lenient' "$(api POST $ec '{"oidc":{"client_id":"c","requires_pkce":false},"sync_user_attributes":false}')" '201 ' '"provider":"oidc_custom"'
	like 'lenient, but not for unknown names' "$(api POST $ec '{"nome":"x"}')" '422 ' form_param_unknown
	mock_post settings '{"max_connections":2}' >/dev/null
	like 'quota' "$(api POST $ec '{}')" '403 ' quota_exceeded
}

check_records()
{
	local got
	reset
	api POST "$ec?x=%20y" "$acme" -H 'X-Odd: "q"' >/dev/null
	api GET $ec >/dev/null
	got=$(mock_get requests)
	like 'records' "$got" '[{"seq":1,"method":"POST","target":"/v1/enterprise_connections?x=%20y","path":"/v1/enterprise_connections","query":"x=%20y"' \
		'"x-odd":"\"q\""' '"body":{"name":"Acmé ☃"' '"status":201' '"scripted":false'
	like 'records since' "$(mock_get 'requests?since=1')" '[{"seq":2,"method":"GET"' '"body":null,"raw_body":null'
	is 'records by method' "$(mock_get 'requests?method=PATCH')" '[]'
	like 'stats' "$(mock_get stats)" '"requests":2,"by_method":{"GET":1,"POST":1}' '"by_status":{"200":1,"201":1}' '"connections_opened":2' '"open_connections":0'
	curl -s -X DELETE "$base/_mock/requests" >/dev/null
	is 'records cleared' "$(mock_get requests)" '[]'
	mock_post settings '{"record":"light"}' >/dev/null
	api POST $ec '{}' >/dev/null
	like 'light records' "$(mock_get requests)" '"seq":3' '"headers":null,"body":null,"raw_body":null'
	curl -s -H "Authorization: Bearer $key" -o /dev/null -o /dev/null "$base$ec" "$base$ec"
	like 'a kept connection keeps its number' "$(mock_get 'requests?since=3')" '"connection":4' '"seq":5'
	mock_post settings '{"record":"full"}' >/dev/null
	printf '\xff\x00' >"$tmp/bytes"
	api POST $ec "@$tmp/bytes" >/dev/null
	like 'odd bytes are recorded' "$(mock_get 'requests?since=5')" '"raw_body_base64":"/wA="'
}

check_script()
{
	reset
	mock_post script '{"match":{"method":"GET","path":"/enterprise_connections"},"skip":1,"times":2,"status":502,"body":"<html>","headers":{"Content-Type":"text/html","X-A":["1","2"]}}' >/dev/null
	like 'the first is let through' "$(api GET $ec)" '200 '
	like 'a scripted answer' "$(api GET $ec '' -i)" '502 ' 'X-A: 1' 'X-A: 2' 'Content-Type: text/html' '<html>'
	like 'the script and its counts' "$(mock_get script)" '"matched":2,"used":1'
	like 'no match' "$(api GET $ec/x)" '404 '
	like 'the second time' "$(api GET $ec)" '502 '
	like 'used up' "$(api GET $ec)" '200 '
	like 'a misspelt step is refused' "$(mock_post script '[{"status":500},{"stauts":500}]')" '{"error":"unknown member stauts"}'
	is 'and nothing of it stays' "$(mock_get script)" '[]'
	mock_post script '{"match":{"body_contains":"Acm"},"apply":true,"status":500,"body":{"error":"x"}}' >/dev/null
	is 'applied, then 500' "$(api POST $ec "$acme")" '500 {"error":"x"}'
	like 'it exists' "$(api GET $ec)" '"total_count":1'
	mock_post script '[{"reset":"before"},{"reset":"after"}]' >/dev/null
	is 'reset before' "$(broken POST $ec '{"name":"n","provider":"saml_okta","domains":["r1.example"]}')" 56
	like 'not taken' "$(mock_get connections)" acme.example
	unlike 'not taken' "$(mock_get connections)" r1.example
	is 'reset after' "$(broken POST $ec '{"name":"n","provider":"saml_okta","domains":["r2.example"]}')" 56
	like 'taken' "$(mock_get connections)" r2.example
	like 'a reset has no status' "$(mock_get 'requests?method=POST')" '"status":null,"scripted":true'
	mock_post script '[{"truncate":20},{"chunked":true,"truncate":20},{"chunked":true,"fill":{"byte":"b","size":300000,"prefix":"["}},{"fill":{"size":50000000}}]' >/dev/null
	is 'truncated' "$(broken GET $ec)" 18
	is 'truncated chunks' "$(broken GET $ec)" 18
	like 'chunked' "$(api GET $ec '' -i)" 'Transfer-Encoding: chunked' '[bbbb'
	is 'filled' "$(curl -s -H "Authorization: Bearer $key" "$base$ec" | wc -c)" 50000000
	mock_post script '[{"raw":"HTTP/1.1 200 OK\r\nX: raw\r\n\r\nhello"},{"raw":"nonsense"},{"body_base64":"/wA=","headers":{"Content-Type":null}}]' >/dev/null
	like 'raw' "$(api GET $ec '' -i)" 'X: raw' hello
	is 'raw nonsense' "$(broken GET $ec)" 1
	is 'bytes' "$(curl -s -i -H "Authorization: Bearer $key" "$base$ec" | tr -d '\r' | sed '1,/^$/d' | base64)" '/wA='
}

# together N WIDTH: how many of N requests, WIDTH of them at a time, were answered 200
together()
{
	curl -sk -m 30 -Z --parallel-immediate --parallel-max "$2" -H "Authorization: Bearer $key" \
		-o /dev/null -w '%{http_code}\n' "$base$ec?[1-$1]" 2>/dev/null | grep -c 200
}

now_ms()
{
	date +%s%3N
}

check_delays()
{
	local t0 t1 job
	reset
	mock_post script '[{"match":{"method":"POST"},"delay_ms":2000},{"match":{"method":"PATCH"},"delay_after_ms":5000}]' >/dev/null
	t0=$(now_ms)
	api POST $ec "$acme" >"$tmp/slow" & job=$!
	eventually 'in flight' stats '"in_flight":1'
	like 'others are not blocked, nothing is taken yet' "$(api GET $ec)" '"total_count":0'
	wait $job
	t1=$(now_ms)
	below 'delayed' 2000 $((t1 - t0 + 1))
	like 'and answered' "$(cat "$tmp/slow")" '201 '
	is 'the client gives up' "$(WAIT=2 broken PATCH $ec/entconn_000001 '{"name":"late"}')" 28
	like 'taken before the answer was due' "$(api GET $ec/entconn_000001)" '"name":"late"'
	mock_post script '{"match":{"method":"POST"},"delay_ms":3000}' >/dev/null
	is 'the client gives up early' "$(WAIT=2 broken POST $ec '{"name":"n","provider":"saml_okta","domains":["late.example"]}')" 28
	unlike 'not taken before its time' "$(mock_get connections)" late.example
	eventually 'taken after the client gave up' connections late.example

	mock_post script '[{"hold":true},{"hold":true},{"hold":true,"status":503}]' >/dev/null
	is 'held' "$(WAIT=1 broken GET $ec)" 28
	eventually 'a held request ends when its client leaves' stats '"in_flight":0'
	api GET $ec >"$tmp/held" & job=$!
	eventually 'held again' stats '"in_flight":1'
	is 'released' "$(mock_post release)" '{"released":1}'
	wait $job
	like 'with the real answer' "$(cat "$tmp/held")" '200 ' '"total_count":2'
	WAIT=20 broken GET $ec >"$tmp/code" & job=$!
	eventually 'held once more' stats '"in_flight":1'
	reset
	wait $job
	is 'a reset drops what is held' "$(cat "$tmp/code")" 52
	mock_post script '{"trickle":{"bytes":10,"every_ms":100},"status":200,"body":"0123456789012345678901234567890123456789"}' >/dev/null
	t0=$(now_ms)
	like 'trickled' "$(api GET $ec)" '200 0123456789012345678901234567890123456789'
	t1=$(now_ms)
	below 'slowly' 300 $((t1 - t0 + 1))
}

check_crowds()
{
	local t0 t1
	reset '{"latency_ms":1000}'
	t0=$(now_ms)
	is 'twenty at a time' "$(together 20 20)" 20
	t1=$(now_ms)
	below 'side by side' $((t1 - t0)) 15000
	unlike 'side by side' "$(mock_get stats)" '"max_in_flight":1,'
	# 128 and its multiples are what microhttpd's own loop stumbles over
	mock_post settings '{"latency_ms":20}' >/dev/null
	is 'many in step' "$(together 1024 128)" 1024
	mock_post settings '{"latency_ms":0}' >/dev/null
	is 'many at once' "$(together 1024 256)" 1024
	mock_post settings '{"chaos":{"seed":3,"p_500":0.1,"p_reset_before":0.1,"p_reset_after":0.1,"p_slow":0.3,"slow_ms":30,"p_slow_after":0.3,"slow_after_ms":20}}' >/dev/null
	together 512 64 >/dev/null
	like 'it survives chaos' "$(mock_get stats)" '"in_flight":0' '"none":' '"500":'
}

check_limits()
{
	reset '{"rate_limit":{"requests":2,"window_ms":3000,"retry_after_s":7}}'
	api GET $ec >/dev/null
	api GET $ec >/dev/null
	like 'rate limit' "$(api GET $ec '' -i)" '429 ' 'retry-after: 7' too_many_requests
	for _ in $(seq 100); do
		case $(api GET $ec) in '200 '*) break ;; esac
		sleep 0.1
	done
	like 'the next window' "$(api GET $ec)" '200 '
	mock_post settings '{"rate_limit":{"requests":0,"window_ms":60000,"as_date":true}}' >/dev/null
	like 'as a date' "$(api GET $ec '' -i)" '429 ' ' GMT'
	mock_post settings '{"rate_limit":null,"chaos":{"seed":7,"p_500":1}}' >/dev/null
	like 'chaos' "$(api GET $ec)" '500 ' internal_clerk_error
	mock_post settings '{"chaos":{"seed":7,"p_reset_after":1}}' >/dev/null
	is 'chaos resets' "$(broken GET $ec)" 56
	like 'a wrong setting is refused' "$(mock_post settings '{"latency_ms":5,"chaos":{"p_600":1}}')" '"error":"unknown member chaos.p_600"'
	like 'and changes nothing' "$(mock_get settings)" '"latency_ms":0'
	mock_post settings '{"chaos":null,"secret_keys":["sk_a","sk_b"]}' >/dev/null
	like 'other keys' "$(api GET $ec)" '401 '
	like 'other keys' "$(key=sk_b; api GET $ec)" '200 '
}

check_seed()
{
	local t0 t1
	reset
	t0=$(now_ms)
	is 'seeding 20000' "$(mock_post seed '{"count":20000,"prefix":"corp"}')" '{"seeded":20000,"total":20000}'
	for offset in 0 500 10000 19500; do
		api GET "$ec?limit=500&offset=$offset" >"$tmp/page"
		is "page at $offset" "$(grep -o '"id":"entconn_' "$tmp/page" | wc -l)" 500
	done
	like 'the oldest comes last' "$(tail -c 2000 "$tmp/page")" corp-1.example '"total_count":20000'
	is 'beyond the end' "$(api GET "$ec?limit=500&offset=20000")" '200 {"data":[],"total_count":20000}'
	t1=$(now_ms)
	below 'quickly' $((t1 - t0)) 20000
	like 'seeded domains are taken' "$(api POST $ec '{"name":"n","provider":"saml_okta","domains":["corp-77.example"]}')" '422 '
	like 'a seeded one can be changed' "$(api PATCH $ec/entconn_010000 '{"active":true}')" '200 ' '"active":true'
	like 'filter over all' "$(api GET "$ec?active=true")" '"total_count":1'
	like 'delete in the middle' "$(api DELETE $ec/entconn_010001)" '200 '
	like 'paging closes the gap' "$(api GET "$ec?limit=1&offset=9999")" 'corp-10000.example' '"total_count":19999'
	curl -s -X DELETE "$base/_mock/connections" >/dev/null
	is 'raw objects' "$(mock_post seed '{"connections":[{"id":"a/b?c#d%é ü","name":"odd","x":[1.50]},{"id":"plain"}],
		"test_runs":{"plain":[{"id":"r1","status":"success"},{"id":"r2","status":"failed"}]}}')" '{"seeded":2,"total":2}'
	is 'an id is decoded exactly once' "$(api GET "$ec/a%2Fb%3Fc%23d%25%C3%A9%20%C3%BC")" '200 {"id":"a/b?c#d%é ü","name":"odd","x":[1.50]}'
	like 'and not twice' "$(api GET "$ec/a%252Fb%253Fc%2523d%2525%25C3%25A9%2520%25C3%25BC")" '404 '
	like 'a plain slash parts' "$(api GET "$ec/a/b")" '404 '
	is 'seeded test runs' "$(api GET "$ec/plain/test_runs?status=success")" '200 {"data":[{"id":"r1","status":"success"}],"total_count":1}'
	like 'the target is recorded as sent' "$(mock_get requests)" '/enterprise_connections/a%2Fb%3Fc%23d%25%C3%A9%20%C3%BC"'
}

check_tls()
{
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
		-keyout "$tmp/key.pem" -out "$tmp/cert.pem" 2>/dev/null
	start --tls --cert "$tmp/cert.pem" --key "$tmp/key.pem" --secret-key sk_one --secret-key sk_two --lenient
	base=${base/http:/https:}
	key=sk_two
	like 'TLS' "$(curl -s --cacert "$tmp/cert.pem" -w '%{http_code}' -H 'Authorization: Bearer sk_one' "$base$ec")" '"total_count":0}200'
	is 'TLS without the right CA' "$(curl -s "$base$ec"; echo $?)" 60
	like 'two keys, lenient' "$(api POST $ec '{"name":"n"}')" '201 '
	mock_post script '[{"reset":"after"},{"truncate":10},{"delay_ms":200}]' >/dev/null
	is 'TLS reset' "$(broken GET $ec)" 56
	case $(broken GET $ec) in
		18 | 56) say ok 'TLS truncated' ;;
		*) say no 'TLS truncated' ;;
	esac
	like 'TLS delayed' "$(api GET $ec)" '200 '
	like 'no raw bytes below TLS' "$(mock_post script '{"raw":"x"}')" '"error"'
	reset
	like 'a reset goes back to the command line' "$(mock_get settings)" '"profile":"lenient"' '["sk_one","sk_two"]'
	stop
	is 'a clean end' $? 0
	key=sk_test_mock
}

check_end()
{
	local t0 t1
	mock_post script '[{"hold":true},{"delay_ms":60000}]' >/dev/null
	broken GET $ec >/dev/null &
	broken GET $ec >/dev/null &
	eventually 'two are waiting' stats '"in_flight":2'
	t0=$(now_ms)
	stop
	is 'a clean end with requests waiting' $? 0
	t1=$(now_ms)
	below 'at once' $((t1 - t0)) 10000
	sleep 60 &
	local parent=$!
	start --parent $parent
	kill $parent
	wait $parent 2>/dev/null
	wait $pid
	is 'it ends with its parent' $? 0
	said 'and says so' "its parent, process $parent, has"
	start --max-seconds 1
	wait $pid
	is 'it ends when its time is up' $? 0
	said 'and says so' 'its 1 seconds are over'
	start
	bash -c "kill -HUP $pid; sleep 1" &
	wait $pid
	is 'a signal from elsewhere ends it' $? 0
	said 'it says from where' "signal 1 (Hangup) from process $! ("
	ulimit -S -c 0
	start
	kill -SEGV $pid
	wait $pid 2>/dev/null
	case $(<"$tmp/err") in
		*'crashed: signal 11, code 0, from process '*'(+0x'* | *'AddressSanitizer: SEGV'*) say ok 'a crash says where' ;;
		*) say no 'a crash says where' "$(<"$tmp/err")" ;;
	esac
	: >"$tmp/err"
}

# Out of descriptors, it takes new connections as soon as there are some again.
check_descriptors()
{
	RUNNER="prlimit --nofile=30:30 ${RUNNER-}" start
	# silent ones, that all leave at once
	bash -c "for _ in {1..40}; do exec {fd}<>/dev/tcp/127.0.0.1/${base##*:}; done; exec sleep 60" &
	local silent=$! files
	for _ in $(seq 100); do
		files=(/proc/"$pid"/fd/*)
		[ ${#files[@]} -lt 30 ] || break
		sleep 0.1
	done
	below 'descriptors ran out' 29 ${#files[@]}
	mock_get stats >"$tmp/stats" &
	local asking=$!
	kill $silent
	wait $silent 2>/dev/null
	wait $asking
	like 'and are there again' "$(cat "$tmp/stats")" '"open_connections":'
	stop
	is 'a clean end' $? 0
}

start
check_basics
check_life
check_validation
check_records
check_script
check_delays
check_crowds
check_limits
check_seed
check_end
check_descriptors
check_tls
is 'nothing on stderr' "$(cat "$tmp/err")" ''
echo "1..$count"
[ $failed -eq 0 ]
