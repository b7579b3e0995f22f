#!/usr/bin/perl
#
# Runs TAP test files as prove does, and says how it went in numbers:
#
#   tap.pl [-v] [-j N] --counts FILE TEST...
#
# FILE gets one line for each test file: its name, how many assertions passed
# and how many failed. A file that ends early, or with an error, or that does
# not run what it planned, has failed at least once.

use strict;
use warnings;

use Getopt::Long;
use TAP::Harness;

my ($verbose, $jobs, $counts) = (0, 1, undef);
GetOptions('v' => \$verbose, 'j=i' => \$jobs, 'counts=s' => \$counts)
  && defined $counts && @ARGV
  or die "usage: $0 [-v] [-j N] --counts FILE TEST...\n";

my $harness = TAP::Harness->new(
	{
		verbosity => $verbose,
		jobs      => $jobs,
		timer     => 1,
		color     => 0,
	});
my $results = $harness->runtests(@ARGV);

open my $out, '>', $counts or die "could not write $counts: $!\n";
for my $file (@ARGV)
{
	my ($test)  = $results->parsers($file);
	my $skipped = scalar $test->skipped;
	my $passed  = $test->passed - $skipped;
	my $failed  = scalar $test->failed;

	$failed ||= 1 if $test->has_problems;
	print $out "$file $passed $failed\n";
	print "$file: $skipped skipped\n" if $skipped;
	print "$file: skipped, ", $test->skip_all, "\n" if defined $test->skip_all;
}
close $out or die "could not write $counts: $!\n";
exit($results->all_passed ? 0 : 1);
