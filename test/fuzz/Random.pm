# Values at random, as odd as they can be. Whoever calls srand() gets the same
# ones again.

package Random;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;

our @EXPORT_OK = qw(one_in pick some text json json_text name quote identifier mutate @NAMES @TEXTS);

# one_in(N): true once in N times.
sub one_in { return rand($_[0]) < 1 }
sub pick   { return $_[ rand @_ ] }

# some(MAX, sub): up to so many.
sub some { my ($max, $code) = @_; return map { $code->() } 1 .. rand($max + 1) }

# The parameters, and what is in them, as they are on the wire.
our @NAMES = qw(
  name provider domains organization_id active sync_user_attributes disable_additional_identifications
  allow_organization_account_linking authenticatable disable_jit_provisioning custom_attributes oidc saml
  key sso_path scim_path directory_path multi_valued
  auth_url client_id client_secret discovery_url requires_pkce token_url user_info_url
  allow_idp_initiated allow_subdomains attribute_mapping force_authn idp_certificate idp_certificates
  idp_entity_id idp_metadata idp_metadata_url idp_sso_url login_hint
  user_id email_address first_name last_name mode source more
  id object saml_connection oauth_config created_at updated_at data total_count errors url);

our @TEXTS = (
	'', ' ', 'a', 'Acme', 'acme.example', 'ACME.Example', 'saml_okta', 'oidc_custom', 'entconn_1', 'null', 'true', '{}', '[]', '"', '\\', "'",
	'%', '%s%n', '/', '../..', '?', '#', '&', '$1', '@', "\t", "\n", "\r\n", "\x01", "\x7f", "\x{80}", "\x{a0}", "\x{ad}", "\x{df}", "\x{130}",
	"e\x{301}", "\x{200b}", "\x{202e}", "\x{2028}", "\x{feff}", "\x{fffd}", "\x{ffff}", "\x{1f600}", "\x{10ffff}", 'sk_test_mock', 'x' x 63, 'x' x 64,
	'x' x 255, 'x' x 256, "\x{e9}" x 128, 'x' x 1024, "\x{1f600}" x 300, 'y' x 70000, '9' x 400, '-1', '0', '1e9999', '2147483648', '2026-05-12', '1 s');

sub text
{
	my $kind = int rand 8;

	return pick(@TEXTS) if $kind < 4;
	return pick(@NAMES) if $kind == 4;
	return join '', some(20, sub { chr(32 + rand 95) }) if $kind == 5;
	return join '', some(12, sub { chr pick(1 + int rand 127, 0x80 + int rand 0x700, 0x10000 + int rand 0x1000) }) if $kind == 6;
	return pick(@TEXTS) . pick(@TEXTS);
}

# As it is, in camelCase, or nearly right.
sub name
{
	my $name = pick(@NAMES);

	$name =~ s/_(\w)/\U$1/g if one_in(3);
	$name = mutate($name)  if one_in(8);
	$name = text()         if one_in(12);
	return $name;
}

# mutate(TEXT): a few characters are others.
sub mutate
{
	my ($text) = @_;

	for (0 .. rand 3)
	{
		my $at   = int rand(length($text) + 1);
		my $kind = int rand 4;

		if    ($kind == 0) { substr($text, $at, 0) = chr(1 + rand 255) }
		elsif ($kind == 1) { substr($text, $at, 1) = '' if $at < length $text }
		elsif ($kind == 2) { substr($text, $at, 1) = chr(1 + rand 255) if $at < length $text }
		else               { my $part = substr($text, int rand(length($text) + 1), rand 20); substr($text, $at, 0) = $part }
	}
	return $text;
}

# A number as JSON writes it.
sub number
{
	return pick(0, 1, -1, '-0', '0.0', '1e3', '1E+400', '1e-400', '-1e130', '1.0000', '123456789012345678901234567890.5', 2147483647, 2147483648,
		-9223372036854775808, '9223372036854775808', 1780000000000, '1.5e0', '0.1e1', '9' x 50, '1e' . int(rand 130000), '1' . '0' x 200);
}

sub string
{
	my ($text) = @_;
	my $json = JSON::PP->new->allow_nonref->ascii(one_in(2))->encode($text);

	# what no perl string has
	$json =~ s/"\z/pick('\\u0000"', '\\ud800"', '\\udc00\\ud800"', '\\u12"', '\\x"', "\\")/e if one_in(60);
	return $json;
}

# json(DEPTH): a text of JSON, mostly right.
sub json
{
	my ($depth) = @_;
	my $kind = int rand($depth > 0 ? 12 : 6);

	return pick('true', 'false', 'null') if $kind == 0;
	return number() if $kind == 1;
	return string(text()) if $kind < 6;
	return '[' . join(',', some(4, sub { json($depth - 1) })) . ']' if $kind < 8;
	return '[' . join(',', some(4, sub { string(text()) })) . ']' if $kind == 8;
	return object($depth);
}

sub object
{
	my ($depth) = @_;

	return '{' . join(',', some(8, sub { string(name()) . pick(':', ' : ') . json($depth - 1) })) . '}';
}

# The same, as a whole: seldom deep or large or broken.
sub json_text
{
	my ($depth) = @_;

	if (one_in(60))
	{
		my $levels = pick(15, 16, 17, 31, 32, 33, 100, 1000, 7000, 20000);
		my ($open, $close) = @{ pick([ '[', ']' ], [ '{"saml":', '}' ], [ '{"a":', '}' ]) };

		return $open x $levels . '1' . $close x (one_in(4) ? 0 : $levels);
	}
	return '{' . join(',', map { string("n$_") . ':' . json(1) } 1 .. pick(100, 3000)) . '}' if one_in(150);
	return '{"domains":[' . join(',', map { string("d$_.example") } 1 .. pick(100, 5000)) . ']}' if one_in(150);
	return mutate(object($depth)) if one_in(30);
	return one_in(10) ? json($depth) : object($depth);
}

# quote(TEXT): a literal of SQL; PostgreSQL's texts have no NUL.
sub quote
{
	my ($text) = @_;

	return 'NULL' unless defined $text;
	$text =~ tr/\0//d;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub identifier
{
	my ($text) = @_;

	$text =~ tr/\0//d;
	$text =~ s/"/""/g;
	return '"' . ($text eq '' ? 'empty' : $text) . '"';
}

1;
