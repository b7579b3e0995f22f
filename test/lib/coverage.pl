#!/usr/bin/perl
#
# Which lines were run, of C files compiled with --coverage:
#
#   coverage.pl DIRECTORY
#
# Prints a table of the files, and the functions with the most lines that were
# not. The last line is the share in all.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Find;
use File::Spec;
use JSON::PP;

my $FUNCTIONS = 30;    # how many are listed

my $dir = abs_path($ARGV[0] // die "usage: $0 DIRECTORY\n");
my %files;             # name => { line number => runs }
my @functions;

# What gcov says of one object file. A line can be in several of them (one of
# a header), and several times in one.
sub take
{
	my ($answer) = @_;

	for my $file (@{ $answer->{files} })
	{
		my $path = File::Spec->rel2abs($file->{file}, $answer->{current_working_directory});

		next unless $path =~ m{^\Q$dir\E/(.*)};
		my $lines = $files{$1} ||= {};

		$lines->{ $_->{line_number} } += $_->{count} for @{ $file->{lines} };
		push @functions, map { [ $1, @$_{qw(name start_line end_line)} ] } @{ $file->{functions} };
	}
	return;
}

# Without the object's own name: gcov finds the notes beside the data.
sub examine
{
	my ($data) = @_;
	my ($volume, $in) = File::Spec->splitpath($data);
	my $text = do
	{
		open my $gcov, '-|', 'gcov', '--json-format', '--stdout', $data or die "could not run gcov: $!\n";
		local $/;
		<$gcov>;
	};

	take(JSON::PP->new->utf8->decode($_)) for grep { /^\{/ } split /\n/, $text;
	return;
}

sub share
{
	my ($run, $all) = @_;

	return sprintf '%5.1f %%  %5d of %5d', $all ? 100 * $run / $all : 100, $run, $all;
}

my @data;
find(sub { push @data, $File::Find::name if /\.gcda$/ }, $dir);
@data or die "nothing was run, or not compiled with --coverage: $dir\n";
examine($_) for sort @data;

my ($all_run, $all) = (0, 0);
my @rows;
for my $name (sort keys %files)
{
	my $lines = $files{$name};
	my $run   = grep { $_ } values %$lines;

	push @rows, [ $run / (keys %$lines || 1), $name, $run, scalar keys %$lines ];
	$all_run += $run;
	$all     += keys %$lines;
}
printf "%s  %s\n", share(@$_[ 2, 3 ]), $_->[1] for sort { $a->[0] <=> $b->[0] } @rows;

my (%seen, @left);
for my $function (@functions)
{
	my ($name, $called, $from, $to) = @$function;

	next if $seen{"$name $from"}++;
	my @lines = grep { exists $files{$name}{$_} } $from .. $to;
	my @open = grep { !$files{$name}{$_} } @lines;
	push @left, [ scalar @open, scalar @lines, "$called ($name:$from)" ] if @open;
}
print "\nfunctions with the most lines that were not run:\n";
printf "%5d of %4d  %s\n", @$_ for grep { defined } (sort { $b->[0] <=> $a->[0] || $a->[2] cmp $b->[2] } @left)[ 0 .. $FUNCTIONS - 1 ];
print "\nlines that were run: ", share($all_run, $all), "\n";
