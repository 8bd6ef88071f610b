package edu.anu.spice;

import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A cache of caption parses in a text file, in the place of SPICE's class of this name.
 *
 * SPICE's class stores them in LMDB through a serialiser that reaches into Java's own classes, which Java 16 and later
 * forbid. A line here is one caption: the caption, then its tuples; tabs part caption and tuples, the character U+001F
 * parts the words of a tuple. A line that was cut short has no U+0004 at its end and is passed over.
 */
public class LmdbTupleDB {

    private static final String END = "\u0004";
    private final Path file;
    private final Map<String, ArrayList<ArrayList<String>>> parses = new HashMap<>();

    public LmdbTupleDB(String folder) {
        file = Paths.get(folder, "parses.txt");
        if (!Files.exists(file)) {
            return;
        }
        try {
            for (String line : Files.readAllLines(file, StandardCharsets.UTF_8)) {
                if (line.endsWith(END)) {
                    readLine(line.substring(0, line.length() - END.length()));
                }
            }
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }

    private void readLine(String line) {
        String[] fields = line.split("\t", -1);
        ArrayList<ArrayList<String>> tuples = new ArrayList<>();
        for (int index = 1; index < fields.length; index++) {
            tuples.add(new ArrayList<>(Arrays.asList(fields[index].split("\u001f", -1))));
        }
        parses.put(fields[0], tuples);
    }

    public ArrayList<ArrayList<String>> get(String caption) {
        return parses.get(caption);
    }

    public Map<String, ArrayList<ArrayList<String>>> getTransaction(List<String> captions) {
        Map<String, ArrayList<ArrayList<String>>> found = new HashMap<>();
        for (String caption : captions) {
            if (parses.containsKey(caption)) {
                found.put(caption, parses.get(caption));
            }
        }
        return found;
    }

    public void putTransaction(Map<String, ArrayList<ArrayList<String>>> captionTuples) {
        try (BufferedWriter writer = Files.newBufferedWriter(
                file, StandardCharsets.UTF_8, StandardOpenOption.CREATE, StandardOpenOption.APPEND)) {
            for (Map.Entry<String, ArrayList<ArrayList<String>>> item : captionTuples.entrySet()) {
                StringBuilder line = new StringBuilder(item.getKey());
                for (ArrayList<String> tuple : item.getValue()) {
                    line.append('\t').append(String.join("\u001f", tuple));
                }
                parses.put(item.getKey(), item.getValue());
                writer.write(line.append(END).append('\n').toString());
            }
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }
}
